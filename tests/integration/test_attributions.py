"""Where an answer comes from, over HTTP and from the command line, on the model that ships."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from app.commands.attribute import app as command
from app.settings import Settings
from benchmarks.attribution_in_box import hit_of
from editing_core.heraldry.sample import Sample, draw_sample
from tests.support.server import LiveServer, data_uri, eventually

ROOT = Path(__file__).resolve().parents[2]
# The emblem of each shipped sample: its number among the known ones, and the view of it.
SAMPLES = {"heart": (8, 0), "star": (17, 1)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    settings = Settings.load(data_dir=tmp_path_factory.mktemp("data"), device="cpu")
    with LiveServer(settings) as live:
        yield live


def shipped(name: str) -> tuple[Path, Sample, str]:
    number, view = SAMPLES[name]
    path = ROOT / "docs" / "samples" / f"{name}.png"
    return path, draw_sample(number, view=view, split="known"), f"What colour is the {name}?"


def body(name: str, **fields: Any) -> dict[str, Any]:
    path, _, prompt = shipped(name)
    return {"image": data_uri(path.read_bytes()), "prompt": prompt} | fields


def opened(picture: str) -> Image.Image:
    head, _, encoded = picture.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_brightest_patch_lies_in_the_box_of_what_is_asked_about(
    client: httpx.Client, server: LiveServer, name: str
) -> None:
    _, sample, _ = shipped(name)
    (question,) = (q for q in sample.questions if q.kind == "charge_colour")
    box = sample.picture.box(question.regions)
    assert box is not None

    response = client.post("/attributions", json=body(name))

    assert response.status_code == 200, response.text
    found = response.json()
    assert found["answer"] == question.answer
    assert found["token_text"] == question.answer
    assert [layer["layer"] for layer in found["layers"]] == [0, 1, 2, 3]
    assert all(-1 <= layer[part] <= 1 for layer in found["layers"] for part in ("attention", "mlp"))
    assert found["recommended_layer"] in (1, 2)
    assert found["grid"] == [8, 8]
    influence = np.array(found["influence"], dtype=np.float32)
    assert influence.shape == (8, 8)
    hit = hit_of(influence, box, sample.picture.image.shape[0])
    assert hit.is_brightest
    assert hit.ratio > 2
    with opened(found["picture"]) as picture:
        assert picture.size == (1300, 611)
    assert server.version() == 0


def test_a_later_token_may_be_asked_about(client: httpx.Client) -> None:
    wanted = body("heart", prompt="Describe the emblem.")
    first, third = (
        client.post("/attributions", json=wanted | {"token": token}).json() for token in (0, 2)
    )

    assert first["answer"] == third["answer"]
    assert (first["token"], third["token"]) == (0, 2)
    assert third["token_text"] in third["answer"]
    assert first["layers"] != third["layers"]


def test_edits_take_no_part(client: httpx.Client) -> None:
    before = client.post("/attributions", json=body("heart")).json()
    made = client.post("/edits", json=body("heart", target="golden")).json()
    asked = client.post("/generate", json=body("heart")).json()
    after = client.post("/attributions", json=body("heart")).json()
    client.post(f"/admin/edits/{made['id']}/rollback")

    assert asked["text"] == "golden"
    assert after == before


def test_a_client_that_goes_away_stops_the_device(server: LiveServer, client: httpx.Client) -> None:
    with server.device_held():
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{server.url}/attributions",
                json=body("star"),
                timeout=httpx.Timeout(120, read=0.5),
            )
        eventually(lambda: server.waiting == 0)
    eventually(lambda: server.service.engine.queued == 0)
    assert client.post("/attributions", json=body("star")).status_code == 200


def test_the_command_writes_a_picture_and_says_the_same(
    client: httpx.Client, server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _, prompt = shipped("star")
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    plain = runner.invoke(command, [str(path), prompt])
    here = runner.invoke(command, [str(path), prompt, "--json", "--device", "cpu"])
    there = runner.invoke(
        command, [str(path), prompt, "--json", "--url", server.url, "--out", "a/b.png"]
    )

    assert (plain.exit_code, here.exit_code, there.exit_code) == (0, 0, 0)
    assert plain.stdout.startswith("pink\n")
    assert "<- edit here" in plain.stdout
    with Image.open("attribution.png") as drawn:
        assert drawn.format == "PNG"
    assert Path("a/b.png").read_bytes().startswith(b"\x89PNG")
    of_here, of_there = json.loads(here.stdout), json.loads(there.stdout)
    assert of_there == client.post("/attributions", json=body("star")).json()
    assert set(of_here) == set(of_there)
    assert of_here["answer"] == of_there["answer"]
    assert np.allclose(of_here["influence"], of_there["influence"], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing.png", "q"], "cannot read nothing.png"),
        (["notes.txt", "q"], "(image_format_unsupported)"),
        (["star.png", " "], "(invalid_field)"),
        (["star.png", "q", "--token", "99"], "(answer_too_short)"),
        (["star.png", "q", "--model", "nowhere/"], "(checkpoint_missing)"),
        (["star.png", "q", "--url", "http://127.0.0.1:9"], "Is `errata serve` running?"),
        (["star.png", "q", "--device", "abacus"], "abacus"),
        (["star.png", "q", "--out", "notes.txt/a.png"], "cannot write"),
        (["star.png", "q", "--url", "http://x", "--model", "y"], "a server has its own model"),
    ],
)
def test_the_command_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("no picture")
    Path("star.png").write_bytes(shipped("star")[0].read_bytes())

    result = CliRunner().invoke(command, arguments)

    assert result.exit_code != 0
    assert told in result.stderr
    assert "Traceback" not in result.output
