"""Whole questions on the tiny random model: the cache, later tokens, what is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from editing_core.attribution.attribute import Attribution, attribute, reached_blocks, read
from editing_core.attribution.contributions import (
    LayerContribution,
    contributions,
    recommended_layer,
)
from editing_core.attribution.influence import Perturbation
from editing_core.attribution.pictures import draw_attribution
from editing_core.backbones.batch import PromptRow
from editing_core.backbones.loading import find_checkpoint, load_backbone
from editing_core.backbones.watching import watching
from editing_core.config import Placement
from editing_core.editable_model import EditableModel
from editing_core.errors import AnswerTooShort, ContextTooLong, GenerationCancelled
from editing_core.generation import GenerationRow
from tests.support.plain_llava import save_plain_llava
from tests.support.tiny_model import tiny_image

PROMPT = "Is the star blue?"


def close(layers: tuple[LayerContribution, ...]) -> list[object]:
    return [pytest.approx((b.layer, b.attention, b.mlp), abs=1e-5) for b in layers]


def values(layers: tuple[LayerContribution, ...]) -> list[tuple[int, float, float]]:
    return [(b.layer, b.attention, b.mlp) for b in layers]


def test_a_question_gets_its_answer_and_its_figures(tiny_model: EditableModel) -> None:
    found = attribute(tiny_model, tiny_image(5), PROMPT)
    (answer,) = tiny_model.generate([GenerationRow(PROMPT, tiny_image(5))])

    assert found.answer == answer.text
    assert [block.layer for block in found.layers] == [0, 1, 2, 3]
    assert found.recommended_layer in (1, 2)  # the router acts at 1, and nothing reads 3
    assert found.influence_layers == reached_blocks(tiny_model) == (2, 3)
    assert found.grid == found.influence.shape == (4, 4)
    assert found.influence.min() >= 0
    assert found.influence.max() > 0
    again = attribute(tiny_model, tiny_image(5), PROMPT)
    assert np.array_equal(found.influence, again.influence)


def test_the_cache_changes_no_figure(tiny_model: EditableModel) -> None:
    """A later token: decoded step by step with a cache, and prefilled, and without any cache."""
    backbone, image = tiny_model.backbone, tiny_image(6)
    modules = [*backbone.attentions, *backbone.feed_forwards]
    logits, state = backbone.prefill(backbone.prepare([PromptRow(PROMPT, image)]))
    tokens: list[int] = []
    for _ in range(3):
        tokens.append(int(logits[0].argmax()))
        with watching(modules) as calls:
            logits = backbone.decode(torch.tensor(tokens[-1:]), state)
    outputs = torch.stack([calls[place].output[0, -1] for place in range(8)])
    attention, mlp = torch.split(outputs, 4)
    decoded = contributions(backbone, attention, mlp, int(logits[0].argmax()))

    reading = read(backbone, image, PROMPT, answer_ids=tokens)
    batch = backbone.prepare([PromptRow(PROMPT, image, target_ids=tuple(tokens))])
    with watching(modules) as uncached, torch.no_grad():
        whole = backbone.forward(batch)

    assert reading.token_id == int(logits[0].argmax()) == int(whole[0, -1].argmax())
    assert values(reading.layers) == close(decoded)
    for block, call in enumerate(reading.attentions):
        other = uncached[block]
        assert torch.allclose(call.output, other.output, atol=1e-5)
        noisy = other.inputs + 0.1
        assert torch.allclose(call.again(noisy), other.again(noisy), atol=1e-5)
        assert torch.allclose(call.again(call.inputs), call.output, atol=1e-5)


def test_a_later_token_is_that_of_the_answer(tiny_model: EditableModel) -> None:
    image = tiny_image(7)
    (answer,) = tiny_model.generate([GenerationRow(PROMPT, image)])
    last = len(answer.token_ids) - 1

    found = attribute(tiny_model, image, PROMPT, token=last)

    reading = read(tiny_model.backbone, image, PROMPT, answer_ids=answer.token_ids[:last])
    assert reading.token_id == answer.token_ids[last]
    assert found.token == last
    assert found.layers == reading.layers
    with pytest.raises(AnswerTooShort, match="no token") as caught:
        attribute(tiny_model, image, PROMPT, token=last + 1)
    assert caught.value.param == "token"


def test_a_grid_may_have_any_shape(
    tiny_model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(tiny_model.backbone)
    monkeypatch.setattr(kind, "grid", lambda *_: ((3, 5), 1))  # after a class token
    image = tiny_image(8, height=31)  # no other test's: what is seen of a picture is remembered

    reading = read(tiny_model.backbone, image, PROMPT)
    found = attribute(tiny_model, image, PROMPT)

    prepared = tiny_model.backbone.prepare([PromptRow(PROMPT, image)]).rows[0]
    assert prepared.spans.vision is not None
    assert reading.first_patch == prepared.spans.vision[0] + 1
    assert found.grid == (3, 5)
    assert draw_attribution(found, image, PROMPT)


def test_a_backbone_needs_no_router_to_be_read(tmp_path: Path) -> None:
    folder = save_plain_llava(tmp_path)
    backbone = load_backbone(find_checkpoint(folder), Placement.resolve())

    reading = read(backbone, tiny_image(3), PROMPT)

    assert len(reading.layers) == backbone.num_layers == 3
    assert recommended_layer(reading.attention_curve) in (0, 1)
    assert reading.influence([1, 2]).shape == backbone.patch_grid == (4, 4)


def test_what_cannot_be_asked_is_refused(tiny_model: EditableModel) -> None:
    with pytest.raises(ContextTooLong):
        attribute(tiny_model, tiny_image(1), "why " * 500)
    with pytest.raises(GenerationCancelled):
        attribute(tiny_model, tiny_image(1), PROMPT, is_cancelled=lambda: True)


def some_attribution(**changed: object) -> Attribution:
    fields: dict[str, object] = {
        "answer": "blue",
        "token": 0,
        "token_text": "blue",
        "layers": tuple(LayerContribution(i, i / 40, -i / 80) for i in range(32)),
        "recommended_layer": 18,
        "influence_layers": (19, 23, 27, 31),
        "influence": np.eye(3, 4, dtype=np.float32),
    }
    return Attribution(**(fields | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "height", "width"),
    [
        (PROMPT, 48, 48),
        ("$\\frac{ 什么颜色 🚀 \x00 " + "words " * 200, 20, 300),
        ("x" * 500, 3000, 1),
    ],
    ids=["plain", "odd-text", "a-line"],
)
def test_a_picture_can_be_drawn_of_anything(prompt: str, height: int, width: int) -> None:
    image = tiny_image(2, height=height, width=width)
    drawn = draw_attribution(some_attribution(token=2), image, prompt)

    with Image.open(io.BytesIO(drawn)) as picture:
        assert picture.format == "PNG"
        assert picture.size == (1300, 611)
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_the_strongest_patch_is_the_brightest_even_on_white() -> None:
    white = np.full((40, 40, 3), 255, dtype=np.uint8)
    white[:20, :20] = 60  # what is asked about is dark
    influence = np.array([[1.0, 0.0], [0.0, 0.0]], dtype=np.float32)
    drawn = draw_attribution(some_attribution(influence=influence), white, PROMPT)

    with Image.open(io.BytesIO(drawn)) as picture:
        grey = np.asarray(picture.convert("L"), dtype=np.float32)
    shown = grey[100:545, 755:1200]
    half = shown.shape[0] // 2
    assert shown[:half, :half].max() > shown[half + 20 :, half + 20 :].max() + 20


def test_noise_settings_reach_the_map(tiny_model: EditableModel) -> None:
    quiet = attribute(tiny_model, tiny_image(5), PROMPT, noise=Perturbation(sigma=0.0, draws=1))

    assert np.allclose(quiet.influence, 0, atol=1e-6)
    assert draw_attribution(quiet, tiny_image(5), PROMPT)
