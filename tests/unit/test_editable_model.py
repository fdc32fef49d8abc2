"""The promises of an editable model, on a tiny checkpoint of the real classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from editing_core.backbones.batch import PromptRow
from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.edited_pass import EditedPass
from editing_core.editors.base import Seen
from editing_core.errors import (
    ArtifactCorrupt,
    ContextTooLong,
    GenerationCancelled,
    StaleArtifact,
    TargetNotEncodable,
    TargetTooLong,
)
from editing_core.experts.codec import decode_artifact, encode_artifact
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.states import EditStates
from editing_core.types import EditRequest, Sampling
from tests.support.edits import snapshot_with
from tests.support.tiny_model import tiny_image

IMAGE, OTHER = tiny_image(0), tiny_image(5)
PROMPT, TARGET = "Is the star blue?", "the blue Ж"
FORMS = pytest.mark.parametrize("editor", ["liveedit", "liveedit-paper", "visedit"])
SHORT = Sampling(max_new_tokens=10)


@pytest.fixture(scope="module")
def snapshot(tiny_model: EditableModel) -> Snapshot:
    """One aligned edit on IMAGE."""
    return snapshot_with(tiny_model, IMAGE, PROMPT, TARGET)


def edited_pass(model: EditableModel, rows: list[GenerationRow]) -> tuple[Any, EditedPass]:
    batch = model.backbone.prepare([PromptRow(row.prompt, row.image) for row in rows])
    return batch, model.edited_pass(batch, [row.snapshot for row in rows])


def prefill(model: EditableModel, rows: list[GenerationRow]) -> tuple[Tensor, Any, Any]:
    """Logits, and the cache's keys and values by layer."""
    batch, edited = edited_pass(model, rows)
    logits, state = model.backbone.prefill(batch, taps=edited.prefill_taps())
    return logits, [(layer.keys, layer.values) for layer in state.cache.layers], batch


def test_encoding_is_pure_and_its_bytes_are_what_is_served(tiny_model: EditableModel) -> None:
    before = {k: v.clone() for k, v in tiny_model.backbone.decoder.state_dict().items()}
    first, second = (tiny_model.encode(EditRequest(IMAGE, PROMPT, TARGET)) for _ in range(2))
    data = encode_artifact(first)
    assert encode_artifact(second) == data
    stored = decode_artifact(data)
    assert all(torch.equal(stored.payload[k], first.payload[k]) for k in first.payload)
    for name, tensor in tiny_model.backbone.decoder.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert first.key.image.tolist() == tiny_model.image_key(IMAGE).tolist()
    assert first.backbone_fingerprint == tiny_model.backbone_fingerprint
    assert first.router_fingerprint == tiny_model.router_fingerprint
    assert first.editor_fingerprint == tiny_model.editor_fingerprints["liveedit"]
    assert len(first.payload["down"]) == len(tiny_model.backbone.encode_target(TARGET))


def test_a_key_is_of_picture_and_prompt_whatever_the_target(tiny_model: EditableModel) -> None:
    one, other = (
        tiny_model.encode(EditRequest(IMAGE, PROMPT, target)).key
        for target in (TARGET, "something else")
    )
    elsewhere = tiny_model.encode(EditRequest(OTHER, PROMPT, TARGET)).key

    np.testing.assert_allclose(one.text, other.text, atol=1e-5)
    np.testing.assert_allclose(one.visual, other.visual, atol=1e-5)
    assert np.array_equal(one.text, elsewhere.text)
    assert not np.allclose(one.visual, elsewhere.visual, atol=1e-3)


def test_another_scope_is_another_key_and_the_same_expert(tiny_model: EditableModel) -> None:
    request = EditRequest(IMAGE, PROMPT, TARGET)
    made = tiny_model.encode(request)
    again = tiny_model.rescope(made, request)
    other = tiny_model.rescope(made, replace(request, prompt="what else?", not_for=("why?",)))

    assert encode_artifact(again) == encode_artifact(made)
    assert not np.allclose(other.key.text, made.key.text, atol=1e-3)
    assert encode_artifact(replace(other, key=made.key)) == encode_artifact(made)
    with pytest.raises(ContextTooLong):
        tiny_model.rescope(made, replace(request, not_for=("why " * 4000,)))
    with pytest.raises(StaleArtifact):
        tiny_model.rescope(replace(made, router_fingerprint="sha256:x"), request)


@FORMS
def test_an_edit_changes_its_own_question(tiny_model: EditableModel, editor: str) -> None:
    active = snapshot_with(tiny_model, IMAGE, PROMPT, TARGET, editor=editor)
    row = GenerationRow(PROMPT, IMAGE, SHORT)
    plain, edited = tiny_model.generate([row, replace(row, snapshot=active)])
    assert plain.decision.candidates == ()
    assert [c.edit_id for c in edited.decision.applied] == ["e1"]
    assert edited.decision.applied[0].image_similarity == pytest.approx(1.0, abs=1e-6)
    assert edited.token_ids != plain.token_ids


def test_what_lies_before_the_last_prompt_token_is_the_base_models(
    tiny_model: EditableModel, snapshot: Snapshot
) -> None:
    rows = [
        GenerationRow(PROMPT, IMAGE),
        GenerationRow("A longer question about another picture", OTHER),
        GenerationRow("No picture", None),
    ]
    base_logits, base, batch = prefill(tiny_model, rows)
    logits, edited, _ = prefill(tiny_model, [replace(row, snapshot=snapshot) for row in rows])
    assert not torch.equal(logits[0], base_logits[0])
    assert torch.equal(logits[1:], base_logits[1:])
    last = batch.padding[0] + batch.rows[0].spans.last_prompt
    edit_layer = snapshot.entries["e1"].artifact.edit_layer
    for layer, (now, then) in enumerate(zip(edited, base, strict=True)):
        for tensor, original in zip(now, then, strict=True):
            assert torch.equal(tensor[1:], original[1:])
            assert torch.equal(tensor[0, :, :last], original[0, :, :last])
            if layer <= edit_layer:
                assert torch.equal(tensor[0], original[0])
            else:
                assert not torch.equal(tensor[0, :, last:], original[0, :, last:])


def test_unaffected_rows_keep_their_bits_at_every_decode_step(
    tiny_model: EditableModel, snapshot: Snapshot
) -> None:
    rows = [GenerationRow(PROMPT, IMAGE), GenerationRow(PROMPT, OTHER), GenerationRow("x", None)]
    tokens = torch.tensor([[7, 8, 9], [70, 80, 90]])
    trace = []
    for active in (None, snapshot):
        batch, edited = edited_pass(tiny_model, [replace(r, snapshot=active) for r in rows])
        logits, state = tiny_model.backbone.prefill(batch, taps=edited.prefill_taps())
        steps = [logits]
        for step, token in enumerate(tokens, start=2):
            taps = edited.decode_taps(step)
            steps.append(tiny_model.backbone.decode(token, state, taps=taps))
        trace.append(torch.stack(steps))
    assert torch.equal(trace[0][:, 1:], trace[1][:, 1:])
    for step in range(3):
        assert not torch.equal(trace[0][step, 0], trace[1][step, 0])


@pytest.mark.parametrize("image", [OTHER, None])
def test_a_request_that_no_edit_matches_takes_the_plain_path(
    tiny_model: EditableModel, snapshot: Snapshot, image: Any
) -> None:
    row = GenerationRow(PROMPT, image, snapshot=snapshot)
    _, edited = edited_pass(tiny_model, [row])
    assert edited.prefill_taps() is None
    assert edited.decode_taps(2) is None
    plain, _, _ = prefill(tiny_model, [replace(row, snapshot=None)])
    with_edits, _, _ = prefill(tiny_model, [row])
    assert torch.equal(plain, with_edits)
    assert tiny_model.generate([row])[0].decision.candidates == ()


def test_edits_that_the_router_drops_leave_every_bit(
    tiny_model: EditableModel, snapshot: Snapshot
) -> None:
    row = GenerationRow(PROMPT, IMAGE, SHORT)
    plain, _, _ = prefill(tiny_model, [row])
    strict = EditableModel(
        tiny_model.backbone, tiny_model.router.with_thresholds(rho=2.0), tiny_model.editors
    )
    dropped, _, _ = prefill(strict, [replace(row, snapshot=snapshot)])
    assert torch.equal(dropped, plain)
    decision = strict.generate([replace(row, snapshot=snapshot)])[0].decision
    assert decision.applied == ()
    assert [c.outcome for c in decision.candidates] == ["below_text_gate"]


def test_a_prompt_without_words_fires_nothing(
    tiny_model: EditableModel, snapshot: Snapshot
) -> None:
    row = GenerationRow("  ", IMAGE, SHORT, snapshot)
    assert tiny_model.generate([row])[0].decision.candidates == ()


@FORMS
def test_cached_decoding_is_the_teacher_forced_edited_forward(
    tiny_model: EditableModel, editor: str
) -> None:
    active = snapshot_with(tiny_model, IMAGE, PROMPT, TARGET, editor=editor)
    for prompt in (PROMPT, "the", "What else is there in the picture?"):
        row = GenerationRow(prompt, IMAGE, Sampling(max_new_tokens=24), active)
        result = tiny_model.generate([row])[0]
        assert result.decision.applied
        logits = tiny_model.token_logits(row, result.token_ids)
        assert logits.argmax(-1).tolist() == list(result.token_ids)
        # And step by step, each from the tokens before it alone.
        for i in range(0, len(result.token_ids), 5):
            step = tiny_model.token_logits(row, result.token_ids[: i + 1])
            assert int(step[-1].argmax()) == result.token_ids[i]
            assert torch.allclose(step[-1], logits[i], atol=1e-4)


def test_the_edited_forward_is_base_states_plus_residual_run_on(
    tiny_model: EditableModel, snapshot: Snapshot
) -> None:
    """The whole path by hand: lower half, the expert's residual, upper half."""
    row = GenerationRow(PROMPT, IMAGE, snapshot=snapshot)
    ids = tuple(tiny_model.backbone.encode_target(TARGET))
    batch = tiny_model.backbone.prepare([PromptRow(PROMPT, IMAGE, target_ids=ids)])
    made = snapshot.entries["e1"].artifact
    hidden = tiny_model.backbone.lower(batch, made.edit_layer)
    last = batch.rows[0].spans.last_prompt
    steps = torch.arange(hidden.shape[1]) - last + 1
    residual = tiny_model.editors["liveedit"].intervention([(made, 1.0)]).residual(hidden[0], steps)
    assert not residual[:last].any()
    logits = tiny_model.backbone.upper(hidden + residual, batch, made.edit_layer)
    expected = logits[0, last : last + len(ids)]
    assert torch.allclose(tiny_model.token_logits(row, ids), expected, atol=1e-5)


def test_routing_does_not_look_at_the_answer(tiny_model: EditableModel, snapshot: Snapshot) -> None:
    row = GenerationRow(PROMPT, IMAGE, snapshot=snapshot)
    short = tiny_model.token_logits(row, [3])
    long = tiny_model.token_logits(row, [3, 4, 5, 6])
    assert torch.allclose(short[0], long[0], atol=1e-5)


def test_rows_have_experts_of_their_own(tiny_model: EditableModel) -> None:
    first = snapshot_with(tiny_model, IMAGE, PROMPT, "one")
    second = snapshot_with(tiny_model, OTHER, PROMPT, "two", editor="liveedit-paper")
    rows = [
        GenerationRow(PROMPT, IMAGE, SHORT, first),
        GenerationRow(PROMPT, OTHER, SHORT, second),
        GenerationRow(PROMPT, IMAGE, SHORT, second),
        GenerationRow("Something much longer, so that rows are padded", OTHER, SHORT, first),
        GenerationRow(PROMPT, None, SHORT, first),
        GenerationRow(PROMPT, IMAGE, SHORT),
    ]
    together = tiny_model.generate(rows)
    alone = [tiny_model.generate([row])[0] for row in rows]
    assert [len(r.decision.applied) for r in together] == [1, 1, 0, 0, 0, 0]
    assert [r.token_ids for r in together] == [r.token_ids for r in alone]
    assert together[2].token_ids == together[5].token_ids


def test_several_edits_share_a_row(tiny_model: EditableModel) -> None:
    made = [tiny_model.encode(EditRequest(IMAGE, p, t)) for p, t in (("a", "one"), ("b", "two"))]
    active = [MemoryEntry(f"e{i}", m, "d", "p") for i, m in enumerate(made)]
    both = tiny_model.empty_snapshot().evolve(1, activate=active)
    result = tiny_model.generate([GenerationRow("a", IMAGE, SHORT, both)])[0]
    assert {c.edit_id for c in result.decision.applied} == {"e0", "e1"}
    assert sum(c.weight for c in result.decision.applied) == pytest.approx(1.0, abs=1e-5)


def test_rolling_back_gives_the_base_model_again(
    tiny_model: EditableModel, snapshot: Snapshot
) -> None:
    row = GenerationRow(PROMPT, IMAGE, SHORT)
    rolled_back = snapshot.evolve(2, deactivate=["e1"])
    before, after = (
        tiny_model.generate([replace(row, snapshot=s)])[0] for s in (None, rolled_back)
    )
    assert before == after


def test_the_context_ends_a_row(tiny_model: EditableModel, snapshot: Snapshot) -> None:
    limit = tiny_model.backbone.max_positions
    prompt = "?" * (limit - len(tiny_model.backbone.lay_out("", has_image=True).ids) - 3)
    row = GenerationRow(prompt, IMAGE, Sampling(max_new_tokens=80), snapshot)
    result = tiny_model.generate([row])[0]
    assert result.finish_reason == "length" or result.completion_tokens < 3
    assert result.prompt_tokens + result.completion_tokens <= limit
    for count in (3, 10**6):
        with pytest.raises(ContextTooLong) as caught:
            tiny_model.generate([replace(row, prompt=prompt + "?" * count)])
        assert caught.value.param == "prompt"


def test_cancelling_stops_before_the_next_pass(tiny_model: EditableModel) -> None:
    asked: list[bool] = []

    def is_cancelled() -> bool:
        asked.append(True)
        return len(asked) > 3

    given: list[str] = []
    row = GenerationRow(PROMPT, IMAGE, Sampling(max_new_tokens=80))
    with pytest.raises(GenerationCancelled):
        tiny_model.generate(
            [row], on_tokens=lambda _, delta: given.append(delta), is_cancelled=is_cancelled
        )
    assert len(asked) == 4
    assert len(given) <= 3


def test_no_rows_no_results(tiny_model: EditableModel) -> None:
    assert tiny_model.generate([]) == []


@pytest.mark.parametrize(
    ("changes", "error", "param"),
    [
        ({"target": "x" * 64}, TargetTooLong, "target"),
        ({"target": "x" * 10**6}, TargetTooLong, "target"),
        ({"target": " \n"}, TargetNotEncodable, "target"),
        ({"prompt": "x" * 190}, ContextTooLong, "prompt"),
        ({"prompt": "x" * 10**6}, ContextTooLong, "prompt"),
        ({"rephrases": ("fine", "x" * 190)}, ContextTooLong, "prompt"),
    ],
)
def test_requests_that_cannot_be_edits_are_refused(
    tiny_model: EditableModel, changes: dict[str, Any], error: type[Exception], param: str
) -> None:
    request = replace(EditRequest(IMAGE, PROMPT, TARGET), **changes)
    for refuse in (tiny_model.validate, tiny_model.encode):
        with pytest.raises(error) as caught:
            refuse(request, editor="liveedit")
        assert getattr(caught.value, "param", None) == param


def test_the_longest_target_is_accepted(tiny_model: EditableModel) -> None:
    tiny_model.validate(EditRequest(IMAGE, PROMPT, "x" * 63), editor="liveedit")
    with pytest.raises(LookupError, match="liveedit-paper"):
        tiny_model.validate(EditRequest(IMAGE, PROMPT, "x"), editor="telepathy")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"backbone_fingerprint": "sha256:x"}, "backbone"),
        ({"router_fingerprint": "sha256:x"}, "router"),
        ({"editor_fingerprint": "sha256:x"}, "liveedit"),
        ({"editor": "telepathy"}, "telepathy"),
        ({"edit_layer": 0}, "layer 0"),
    ],
)
def test_an_artifact_of_other_weights_is_never_served(
    tiny_model: EditableModel, snapshot: Snapshot, changes: dict[str, Any], named: str
) -> None:
    entry = snapshot.entries["e1"]
    stale = replace(entry, edit_id="old", artifact=replace(entry.artifact, **changes))
    row = GenerationRow(PROMPT, IMAGE, SHORT, snapshot.evolve(2, activate=[stale]))
    with pytest.raises(StaleArtifact, match="edit old") as caught:
        tiny_model.generate([row])
    assert named in caught.value.message


def test_an_expert_whose_numbers_are_none_is_refused(tiny_model: EditableModel) -> None:
    class Explodes(type(tiny_model.editors["liveedit"])):  # type: ignore[misc]
        def encode(
            self, states: EditStates, seen: Sequence[Seen] = ()
        ) -> tuple[dict[str, Tensor], dict[str, str]]:
            return {"down": torch.full((1, 2), torch.inf)}, {}

    editor = Explodes(tiny_model.editors["liveedit"].config)  # type: ignore[attr-defined]
    model = EditableModel(tiny_model.backbone, tiny_model.router, {"liveedit": editor})
    with pytest.raises(ArtifactCorrupt, match="down"):
        model.encode(EditRequest(IMAGE, PROMPT, TARGET))


def test_pictures_of_any_shape_are_taken(tiny_model: EditableModel) -> None:
    for height, width in ((1, 1), (3, 200), (500, 20)):
        image = tiny_image(2, height=height, width=width)
        assert np.isfinite(tiny_model.image_key(image)).all()
        assert tiny_model.generate([GenerationRow(PROMPT, image, SHORT)])[0].completion_tokens
