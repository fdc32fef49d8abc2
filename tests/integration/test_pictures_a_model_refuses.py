"""A picture that the model's own image processor cannot take is the caller's mistake, with its
name: Qwen's take no side that is 200 times the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from app.settings import Settings
from editing_core.first_start import measure
from editing_core.first_start.material import Material
from tests.support.server import LiveServer, data_uri, picture, png
from tests.support.tiny_families import FAMILIES
from tests.support.tiny_model import tiny_image

LINE = data_uri(png(np.full((1, 300, 3), 7, dtype=np.uint8)))
LONG = data_uri(png(tiny_image(3, height=1, width=199)))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("qwen")
    FAMILIES["qwen2_5_vl"].save(folder / "model")
    settings = Settings.load(
        model=str(folder / "model"), data_dir=folder / "data", device="cpu", edit_wait_s=0
    )

    def small(backbone: Any, **given: Any) -> Material:
        return Material(backbone, subjects=6, rows=6, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "Material", small)
        with LiveServer(settings) as live:
            yield live.client


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/generate", {}),
        ("/generate", {"stream": True}),
        ("/edits", {"target": "blue"}),
        ("/attributions", {}),
    ],
    ids=["generate", "stream", "edit", "attribution"],
)
def test_a_line_of_pixels_is_refused_as_the_callers(
    client: httpx.Client, path: str, more: dict[str, Any]
) -> None:
    response = client.post(path, json={"image": LINE, "prompt": "What is it?", **more})

    assert response.status_code == 422, response.text
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("image_not_readable_by_model", "image")
    assert "300x1" in error["message"]
    assert error["hint"]
    assert client.get("/edits").json()["data"] == []


def test_in_a_batch_it_costs_its_own_line(client: httpx.Client) -> None:
    items = [
        {"image": image, "prompt": "What is it?", "target": "blue", "verify": "off"}
        for image in (LINE, picture(1))
    ]
    lines = client.post("/edits/batch", json={"edits": items}).text.splitlines()

    assert '"status":422' in lines[0].replace(" ", "")
    assert "image_not_readable_by_model" in lines[0]
    assert '"status":201' in lines[1].replace(" ", "")


def test_a_picture_at_the_limit_can_be_edited(client: httpx.Client) -> None:
    """Though augmented views of it, which the editor looks at too, may lie beyond."""
    body = {"image": LONG, "prompt": "What is it?", "target": "blue", "verify": "off"}
    made = client.post("/edits/batch", json={"edits": [body]}).text

    assert '"committed":1' in made.replace(" ", ""), made
