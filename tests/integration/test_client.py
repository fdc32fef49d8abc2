"""The Python client before a real server: every method, both clients, pictures of every kind."""

from __future__ import annotations

import asyncio
import base64
import inspect
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from app.access.scopes import ROUTES
from app.errata import (
    AsyncClient,
    BadPicture,
    BadRequest,
    Client,
    Draft,
    EditNotEffective,
    InvalidApiKey,
    NoAnswer,
    NotFound,
    Refused,
    VersionMismatch,
    calls,
    models,
)
from app.errata.models import Model
from app.settings import Settings
from tests.support.server import LiveServer, data_uri, png
from tests.support.tiny_model import tiny_image

STUBBORN = "sphinx of black quartz, judge my vow! 4,1;7"


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Without refinement, random weights do not obey a long target."""
    settings = Settings.load(
        model=str(tiny_checkpoint),
        data_dir=tmp_path_factory.mktemp("data"),
        device="cpu",
        refine_steps=0,
    )
    with LiveServer(settings) as live:
        yield live


@pytest.fixture
def errata(server: LiveServer) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def made(errata: Client, image: str, **fields: Any) -> models.Edit:
    return errata.edit(image, fields.pop("prompt", "q"), "blue", verify="off", **fields)


def test_the_story(server: LiveServer, errata: Client, telling: str) -> None:
    before = errata.generate("q", telling)
    edit = made(errata, telling, note="monday", tags=["client"])
    assert (edit.status, edit.note, edit.tags) == ("active", "monday", ["client"])
    after = errata.generate("q", telling)
    assert after.text != before.text
    assert [each.edit_id for each in after.applied] == [edit.id]
    assert after.version == edit.version == errata.versions().version
    assert errata.generate("q", telling, edits=False).text == before.text
    assert edit.version is not None
    assert errata.generate("q", telling, at_version=edit.version - 1).text == before.text
    undone = errata.rollback(edit.id, reason="a test")
    assert (undone.changed, undone.edit.status) == (True, "rolled_back")
    assert errata.generate("q", telling).text == before.text
    assert errata.reinstate(edit.id).edit.status == "active"
    back = errata.restore(edit.version - 1, if_version=errata.versions().version)
    assert back.rolled_back == [edit.id]
    with pytest.raises(VersionMismatch):
        errata.restore(0, if_version=1)
    history = errata.get_edit(edit.id).history
    assert [event.type for event in history] == [
        "edit_created", "rolled_back", "reinstated", "restored",
    ]  # fmt: skip
    assert history[1].changes[0].from_ == "active"


def test_an_answer_comes_bit_by_bit(errata: Client, image: str) -> None:
    whole = errata.generate("q", image, max_new_tokens=8)
    with errata.stream("q", image, max_new_tokens=8) as stream:
        assert stream.answer is None
        pieces = list(stream)
    assert "".join(pieces) == whole.text
    assert stream.answer is not None
    assert stream.answer.text == whole.text
    assert stream.answer.usage == whole.usage
    with errata.stream("q", image, max_new_tokens=8) as left_early:
        for _ in left_early:
            break
    assert left_early.answer is None
    with pytest.raises(BadRequest) as refused:
        list(errata.stream(" "))
    assert (refused.value.code, refused.value.param) == ("invalid_field", "prompt")


def test_lists_are_read_page_by_page(errata: Client, image: str) -> None:
    ids = [made(errata, image, prompt=f"q {number}", tags=["paged"]).id for number in range(5)]
    assert [edit.id for edit in errata.edits(tag="paged", page_size=2)] == ids[::-1]
    assert [edit.id for edit in errata.edits(tag="paged", page_size=2, limit=3)] == ids[:1:-1]
    assert [edit.id for edit in errata.edits(search="q 3", tag="paged")] == [ids[3]]
    events = list(errata.events())
    assert [event.version for event in events] == list(range(1, events[-1].version + 1))
    assert [event.version for event in errata.events(after=1, limit=2)] == [2, 3]


def test_scope_and_preview_and_why(errata: Client, image: str) -> None:
    edit = made(errata, image, rephrases=["q q"], not_for=["x"])
    changed = errata.scope(edit.id, rephrases=["which"], remove_not_for=["x"], verify="off")
    assert (changed.edit.rephrases, changed.edit.not_for) == (["q q", "which"], [])
    candidates = errata.explain(image, "q").candidates
    assert candidates is not None
    assert (candidates[0].edit_id, candidates[0].outcome) == (edit.id, "applied")
    with pytest.raises(Refused) as refused:
        errata.preview(edit_id=edit.id, questions=["q"])
    assert refused.value.code == "no_question_encoder"
    attribution = errata.attribute(image, "q")
    assert attribution.picture.startswith("data:image/png;base64,")
    assert errata.picture(edit.id).startswith(b"\x89PNG")
    assert errata.thumbnail(edit.id)[8:12] == b"WEBP"


def test_reports(errata: Client, image: str) -> None:
    answer = errata.generate("q", image)
    report = errata.report(answer.id, correction="blue", comment="look")
    (listed,) = [each for each in errata.feedback() if each.id == report.id]
    assert (listed.answer, listed.correction) == (answer.text, "blue")
    assert errata.feedback_picture(report.id).startswith(b"\x89PNG")
    assert errata.resolve(report.id, "dismissal", reason="fine").status == "dismissed"
    with pytest.raises(NotFound):
        errata.report("no such answer")


def test_health_and_load(errata: Client) -> None:
    health = errata.health()
    assert health.is_ready
    assert health.version == errata.versions().version
    assert errata.load().limit > 0


def test_refusals_are_exceptions(errata: Client, image: str) -> None:
    with pytest.raises(EditNotEffective) as refused:
        errata.edit(image, "q", STUBBORN)
    error = refused.value
    assert (error.status, error.code, error.retryable) == (422, "edit_not_effective", False)
    assert error.after is not None
    assert error.request_id
    assert str(error) == f"{error.message} {error.hint} ({error.code})"
    with pytest.raises(NotFound) as missing:
        errata.get_edit("no such?limit=1#x")
    assert missing.value.code == "edit_not_found"


def test_one_key_is_one_edit(server: LiveServer, errata: Client, image: str) -> None:
    first = made(errata, image, idempotency_key="client-once")
    version = server.version()
    assert made(errata, image, idempotency_key="client-once") == first
    assert server.version() == version
    cancelled = errata.begin_edit(image, "q 2", "blue", verify="off")
    with pytest.raises(Refused) as refused:
        errata.cancel(cancelled.id)
    assert refused.value.code == "edit_committed"


def test_many_edits(errata: Client, image: str) -> None:
    drafts = [Draft(image, f"many {number}", "blue", verify="off") for number in range(3)]
    drafts.insert(1, Draft(image, " ", "blue"))
    outcomes = list(errata.edit_many(drafts))
    assert [(each.index, each.status) for each in outcomes] == [
        (0, 201), (1, 400), (2, 201), (3, 201),
    ]  # fmt: skip
    assert outcomes[1].error is not None
    assert outcomes[1].error["code"] == "invalid_field"
    assert outcomes[3].edit is not None
    assert errata.get_edit(outcomes[3].edit.id).prompt == "many 2"
    assert list(errata.edit_many([])) == []


def test_pictures_of_every_kind_are_the_same_picture(errata: Client, tmp_path: Path) -> None:
    pixels = tiny_image(4242)
    file = tmp_path / "picture.png"
    file.write_bytes(png(pixels))
    kinds: list[Any] = [str(file), file, file.read_bytes(), Image.fromarray(pixels), pixels]
    digests = {
        errata.edit(kind, f"kind {number}", "blue", verify="off").image_digest
        for number, kind in enumerate([*kinds, data_uri(file.read_bytes())])
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("no/such/file.png", "cannot read no/such/file.png: No such file"),
        ("/", "it is no file"),
        (b"", None),
        (7, "not int"),
        (np.zeros((2, 2, 3)), "float64"),
        (np.zeros((2, 2, 2), np.uint8), "[2, 2, 2]"),
    ],
)
def test_what_is_no_picture(errata: Client, picture: Any, message: str | None) -> None:
    """The server judges bytes."""
    with pytest.raises(BadPicture if message else Refused, match=None) as refused:
        errata.generate("q", picture)
    assert message is None or message in str(refused.value)


def test_a_picture_that_no_png_can_hold_is_converted() -> None:
    from app.errata.pictures import encoded

    written = base64.b64decode(encoded(Image.new("CMYK", (4, 3))))
    assert Image.open(io.BytesIO(written)).size == (4, 3)


def test_keys(tiny_checkpoint: Path, tmp_path: Path) -> None:
    settings = Settings.load(model=str(tiny_checkpoint), data_dir=tmp_path, device="cpu")
    with LiveServer(settings) as live, Client(live.url) as first:
        root = first.create_key("root", "admin")
        with Client(live.url, api_key=root.token) as admin:
            key = admin.create_key("desk", edits_per_day=3)
            assert (key.scope, key.edits_per_day) == ("infer", 3)
            assert [each.label for each in admin.list_keys()] == ["root", "desk"]
            assert admin.revoke_key(key.id).revoked_at is not None
        with pytest.raises(InvalidApiKey):
            first.versions()
        assert first.health().is_ready


def test_the_same_with_await(server: LiveServer, telling: str, image: str) -> None:
    async def story() -> None:
        async with AsyncClient(server.url) as errata:
            before = await errata.generate("q", telling)
            edit = await errata.edit(telling, "q", "blue", verify="off", tags=["await"])
            after = await errata.generate("q", telling)
            assert after.text != before.text
            async with errata.stream("q", telling) as stream:
                pieces = [piece async for piece in stream]
            assert "".join(pieces) == after.text
            assert stream.answer is not None
            assert [each.edit_id for each in stream.answer.applied] == [edit.id]
            await errata.rollback(edit.id)
            assert (await errata.generate("q", telling)).text == before.text
            assert [each.id async for each in errata.edits(tag="await", page_size=1)] == [edit.id]
            drafts = [Draft(image, "q", "blue", verify="off"), Draft(image, " ", "blue")]
            assert [each.status async for each in errata.edit_many(drafts)] == [201, 400]
            assert (await errata.health()).is_ready
            with pytest.raises(NotFound):
                await errata.get_edit("none")
        async with AsyncClient("127.0.0.1:9", retries=1) as nowhere:
            with pytest.raises(NoAnswer):
                await nowhere.versions()

    asyncio.run(story())


def test_both_clients_have_every_call() -> None:
    own = [each for _, each in inspect.getmembers(calls, inspect.isfunction)]
    built = {each.__name__ for each in own if each.__module__ == calls.__name__}
    built = {name for name in built if not name.startswith("_")}
    built -= {"send_fields"}  # for those who have the fields already
    for client in (Client, AsyncClient):
        assert built <= set(dir(client))
        for name in built:
            shown = inspect.signature(getattr(client, name))
            wanted = inspect.signature(getattr(calls, name))
            assert list(shown.parameters)[1:] == list(wanted.parameters), name
            assert inspect.getdoc(getattr(client, name)) == inspect.getdoc(getattr(calls, name))
    assert set(dir(Client)) - {"__enter__", "__exit__"} <= set(dir(AsyncClient))


NOT_OURS = {
    ("GET", "/"), ("GET", "/docs"), ("GET", "/console/{file:path}"), ("GET", "/openapi.json"),
    ("GET", "/health/live"), ("GET", "/metrics"),
}  # fmt: skip
"""Pages, and what probes and Prometheus read."""


def test_every_route_that_callers_use_has_a_call() -> None:
    """By the paths that are written in the calls, their fields filled in."""
    source = inspect.getsource(calls) + '"/edits/batch"'
    for method, path in sorted(set(ROUTES) - NOT_OURS):
        if path.startswith("/v1/"):
            continue
        last = path.rpartition("}")[2] or path
        assert last.rpartition("{")[0] in source, (method, path)


VIEWS: dict[str, type[Model]] = {
    "EditView": models.Edit, "EditWithHistory": models.Edit, "EditChanged": models.Switched,
    "Restored": models.Restored, "GenerateView": models.Answer, "AppliedView": models.Applied,
    "CandidateView": models.Candidate, "UsageView": models.Usage, "EventView": models.Event,
    "ChangeView": models.Change, "ReachView": models.Preview, "ReachedView": models.Reached,
    "AttributionView": models.Attribution, "LayerView": models.Layer,
    "FeedbackMade": models.Reported, "FeedbackTaken": models.TakenIn,
    "FeedbackView": models.Feedback, "WebhookView": models.Webhook,
    "KeyView": models.Key, "KeyMade": models.NewKey,
    "LoadView": models.Load, "Versions": models.Versions, "BackboneView": models.Backbone,
    "RouterView": models.Router, "QuestionEncoderView": models.QuestionEncoder,
    "EyesView": models.Eyes, "EditorView": models.Editor, "ProgressView": models.Progress,
    "WarningView": models.Warned,
}  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
def test_the_models_know_every_field(server: LiveServer, view: str) -> None:
    schemas = server.client.get("/openapi.json").json()["components"]["schemas"]
    wanted = set(schemas[view]["properties"])
    known = {field.alias or name for name, field in VIEWS[view].model_fields.items()}
    assert wanted <= known
    assert known - wanted <= ({"history", "fired"} if view == "EditView" else set())


def test_a_field_of_a_newer_server_is_kept() -> None:
    sent = {"waiting": 1, "limit": 2, "wait_s": 0.5, "not_finite": 0, "newer": {"x": 1}}
    load = models.Load.model_validate(sent)
    assert load.to_dict() == sent
    assert load.newer == {"x": 1}  # type: ignore[attr-defined]
    assert issubclass(type(load), Model)


def test_words_of_the_api_are_the_servers() -> None:
    from app.access.scopes import KeyScope
    from app.edits.edit import Verify
    from app.store.ledger import EditStatus

    assert set(get_args(models.EditStatus)) == set(get_args(EditStatus))
    assert set(get_args(models.Verify)) == set(get_args(Verify))
    assert set(get_args(models.KeyScope)) == set(get_args(KeyScope))
