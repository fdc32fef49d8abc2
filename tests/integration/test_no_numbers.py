"""A model that gives NaN or infinity is named as such: never as "!!!!!!", nor as the wording's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from app.settings import Settings
from editing_core.experts.slots import AlignedIntervention
from tests.support.server import LiveServer, picture

EDIT = {"image": picture(1), "prompt": "q", "target": "blue"}


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """In float16, where numbers are soon too large."""
    settings = Settings.load(
        model=str(tiny_checkpoint),
        data_dir=tmp_path_factory.mktemp("data"),
        device="cpu",
        dtype="fp16",
    )
    with LiveServer(settings) as live:
        yield live


@contextmanager
def broken(server: LiveServer, value: float) -> Iterator[None]:
    """While the block runs, the model's last norm multiplies by `value`."""
    weight = server.model.backbone.final_norm.weight
    assert isinstance(weight, Tensor)
    before = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before)


@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=["nan", "infinity"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"prompt": "q"}),
        ("/generate", {"prompt": "q", "temperature": 1.0}),
        ("/generate", {"prompt": "q", "image": picture(1), "stream": True}),
        ("/attributions", {"prompt": "q", "image": picture(1)}),
        ("/edits", EDIT),
    ],
    ids=["greedy", "sampled", "streamed", "explained", "edit"],
)
def test_it_is_one_named_error(
    server: LiveServer,
    caplog: pytest.LogCaptureFixture,
    path: str,
    body: dict[str, Any],
    value: float,
) -> None:
    counted = server.service.engine.not_finite
    with broken(server, value):
        response = server.client.post(path, json=body)

    assert response.status_code == 500, response.text
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "model_not_finite")
    assert "--dtype" in error["hint"]
    assert "Reword" not in response.text
    assert server.service.engine.not_finite > counted
    assert f"{counted + 1} times" in caplog.text
    assert server.client.post("/generate", json={"prompt": "q"}).status_code == 200


def test_states_that_are_no_numbers_are_no_fault_of_the_edit(server: LiveServer) -> None:
    """Below the edit's layer, where no answer is looked at yet."""
    layer: Any = server.model.backbone.layers[0]
    weight = layer.input_layernorm.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(torch.nan)
    try:
        response = server.client.post("/edits", json=EDIT | {"verify": "off"})
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert response.json()["error"]["code"] == "model_not_finite", response.text


@pytest.mark.parametrize("verify", ["strict", "report"])
def test_an_edit_that_breaks_the_model_is_refused_as_no_edit(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, verify: str
) -> None:
    def explodes(self: AlignedIntervention, states: Tensor, steps: Tensor) -> Tensor:
        return torch.full_like(states, torch.inf).where((steps >= 1).unsqueeze(-1), 0.0)

    monkeypatch.setattr(AlignedIntervention, "residual", explodes)
    response = server.client.post("/edits", json=EDIT | {"verify": verify})

    assert response.status_code == 422, response.text
    error = response.json()["error"]
    assert error["code"] == "edit_not_effective"
    assert "gave no numbers" in error["message"]
    assert server.version() == 0
