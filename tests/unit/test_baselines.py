"""What is particular to each baseline; what all of them share is in `tests/contracts`."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from editing_core.backbones.batch import PromptRow
from editing_core.editable_model import EditableModel
from editing_core.editors.baselines.ft_l import FtL, FtLSettings
from editing_core.editors.baselines.grace import Grace, GraceSettings
from editing_core.editors.baselines.in_context import ANSWER_ROOM
from editing_core.editors.baselines.recipe import with_soft_prompt
from editing_core.errors import ContextTooLong
from editing_core.types import EditRequest
from tests.support.baselines import OTHER, REQUEST, base_logits, baseline_of, logits_of
from tests.support.tiny_model import tiny_image


def request(target: str, *, seed: int = 1, prompt: str = "What is it?") -> EditRequest:
    return EditRequest(tiny_image(seed), prompt, target)


# FT-L and FT-M: weights within their bound.


@pytest.mark.parametrize("around", ["base", "previous"])
def test_no_weight_of_the_layer_moves_further_than_the_bound(
    tiny_model: EditableModel, around: str
) -> None:
    baseline = baseline_of(tiny_model, "ft_l", bound=0.01, around=around)
    base = [module.weight.clone() for module in baseline._maps]

    found = [base]
    for edit in (REQUEST, OTHER):
        baseline.edit(edit)
        found.append([weight.clone() for weight in baseline._weights])

    centres = [base, base] if around == "base" else found[:2]
    for centre, weights in zip(centres, found[1:], strict=True):
        moved = [float((w - c).abs().max()) for c, w in zip(centre, weights, strict=True)]
        assert 0.005 < max(moved) <= 0.01 + 1e-6


def test_ft_l_is_what_a_model_with_those_weights_computes(tiny_model: EditableModel) -> None:
    baseline = baseline_of(tiny_model, "ft_l")
    baseline.edit(REQUEST)
    expected = logits_of(baseline, OTHER.prompt, OTHER.image)
    base = [module.weight.clone() for module in baseline._maps]

    with torch.no_grad():
        for module, weight in zip(baseline._maps, baseline._weights, strict=True):
            module.weight.copy_(weight)
        written = base_logits(tiny_model, OTHER.prompt, OTHER.image)
        for module, weight in zip(baseline._maps, base, strict=True):
            module.weight.copy_(weight)

    assert torch.equal(written, expected)


def test_it_stops_as_soon_as_the_loss_is_low(tiny_model: EditableModel) -> None:
    baseline = baseline_of(tiny_model, "ft_l", stop_at=math.inf)
    baseline.edit(REQUEST)

    expected = base_logits(tiny_model, REQUEST.prompt, REQUEST.image)
    assert torch.equal(logits_of(baseline, REQUEST.prompt, REQUEST.image), expected)


@pytest.mark.parametrize("layer", [0, 4])
def test_a_layer_that_cannot_be_edited_is_named(tiny_model: EditableModel, layer: int) -> None:
    backbone, router = tiny_model.backbone, tiny_model.router

    with pytest.raises(ValueError, match=f"layer {layer} is not in 1..3"):
        FtL(backbone, router, FtLSettings(layer=layer))
    with pytest.raises(ValueError, match=f"layer {layer} is not in 1..3"):
        Grace(backbone, router, GraceSettings(layer=layer))


def test_ft_m_changes_every_picture_and_no_text(tiny_model: EditableModel) -> None:
    baseline = baseline_of(tiny_model, "ft_m")
    before = tiny_model.backbone.image_features([OTHER.image])[0]
    baseline.edit(REQUEST)

    text = logits_of(baseline, "What?", None)
    picture = logits_of(baseline, "What?", OTHER.image)

    assert torch.equal(text, base_logits(tiny_model, "What?", None))
    assert not torch.equal(picture, base_logits(tiny_model, "What?", OTHER.image))
    # The cache that the base model reads holds the base model's features still.
    after = tiny_model.backbone.image_features([OTHER.image])[0]
    assert torch.equal(before.patches, after.patches)


def test_ft_m_before_any_step_shows_what_the_backbone_shows(tiny_model: EditableModel) -> None:
    baseline = baseline_of(tiny_model, "ft_m", stop_at=math.inf)
    baseline.edit(REQUEST)
    own = baseline.picture_for(OTHER.image)
    base = tiny_model.backbone.image_features([OTHER.image])[0]

    assert torch.equal(own.patches, base.patches)
    np.testing.assert_array_equal(own.key, base.key)


# In-context memory: what is put before the question.


def test_it_tells_the_nearest_last_and_only_what_fits(tiny_model: EditableModel) -> None:
    # The tiny router's tau lets only the very picture through.
    baseline = baseline_of(tiny_model, "in_context", fact="{prompt}={target}; ", most=2)
    for prompt, target in (("a?", "1"), ("b?", "2"), ("c?", "3")):
        baseline.edit(request(target, prompt=prompt))
    baseline.edit(request("9", seed=2, prompt="other picture?"))

    asked = baseline.prompt_for("d?", tiny_image(1))
    assert asked == "b?=2; a?=1; d?"
    assert baseline.prompt_for("d?", tiny_image(3)) == "d?"
    assert baseline.prompt_for("d?", None) == "d?"

    backbone = tiny_model.backbone
    empty = len(backbone.lay_out("d", has_image=True).ids) - 1
    long = "d" * (backbone.max_positions - empty - ANSWER_ROOM - len("a?=1; "))
    assert baseline.prompt_for(long, tiny_image(1)) == f"a?=1; {long}"
    _, acting = baseline.begin([PromptRow(long, tiny_image(1)), PromptRow("d?", None)])
    assert (acting.survivors, acting.fired) == ([3, 0], [1, 0])


@pytest.mark.parametrize("name", ["in_context", "recipe"])
def test_the_later_edit_of_a_picture_and_prompt_replaces_the_earlier(
    tiny_model: EditableModel, name: str
) -> None:
    baseline = baseline_of(tiny_model, name)
    baseline.edit(request("a"))
    baseline.edit(request("b", prompt="What  is it?"))

    _, acting = baseline.begin([PromptRow("What is it?", tiny_image(1))])
    assert acting.survivors == [1]
    if name == "in_context":
        assert "is it? b" in baseline.prompt_for("Q", tiny_image(1))


# GRACE: how the codebook grows.


def test_radii_widen_for_one_label_and_split_for_two(tiny_model: EditableModel) -> None:
    baseline = baseline_of(tiny_model, "grace", radius=1e6, steps=0)
    baseline.edit(request("a"))
    (first,) = baseline._entries

    baseline.edit(request("a", seed=2))
    assert len(baseline._entries) == 1
    assert baseline._entries[0].radius == 1e6

    baseline.edit(request("b", seed=3))
    old, new = baseline._entries
    apart = float((old.key - new.key).norm())
    assert torch.equal(old.key, first.key)
    assert new.radius == pytest.approx(apart / 2, rel=1e-4)
    assert old.radius == pytest.approx(apart / 2, rel=1e-4)
    assert old.radius + new.radius < apart


def test_an_edit_far_from_every_key_gets_the_initial_radius(tiny_model: EditableModel) -> None:
    baseline = baseline_of(tiny_model, "grace", radius=1e-3, steps=0)
    for seed in range(3):
        baseline.edit(request("ab"[seed % 2], seed=seed))

    assert [entry.radius for entry in baseline._entries] == [1e-3] * 3
    keys = [entry.key for entry in baseline._entries]
    assert all(not torch.equal(a, b) for a, b in pairwise(keys))


def test_an_edit_on_the_same_state_takes_the_entry_over(tiny_model: EditableModel) -> None:
    baseline = baseline_of(tiny_model, "grace", steps=0)
    baseline.edit(request("a"))
    baseline.edit(request("b"))

    (entry,) = baseline._entries
    assert (entry.label, entry.radius) == ("b", 0.5)


@pytest.mark.parametrize("replaces", ["last", "prompt"])
def test_the_codebook_acts_within_its_radius_only(tiny_model: EditableModel, replaces: str) -> None:
    baseline = baseline_of(tiny_model, "grace", radius=1e-2, replaces=replaces)
    baseline.edit(REQUEST)

    batch, acting = baseline.begin(
        [PromptRow(REQUEST.prompt, REQUEST.image), PromptRow("Something else entirely?", None)]
    )
    tiny_model.backbone.prefill(batch, taps=acting.prefill_taps())

    assert acting.fired == [1, 0]
    other = logits_of(baseline, OTHER.prompt, OTHER.image)
    assert torch.equal(other, base_logits(tiny_model, OTHER.prompt, OTHER.image))


# RECIPE: where the soft prompt goes.


def test_a_soft_prompt_stands_between_picture_and_words(tiny_model: EditableModel) -> None:
    backbone = tiny_model.backbone
    row = backbone.prepare([PromptRow("What?", tiny_image(1), target_ids=(5, 6))]).rows[0]
    prompt = torch.randn(3, backbone.hidden_size)

    longer = with_soft_prompt(row, prompt, backbone)

    assert row.spans.vision is not None
    assert longer.spans.vision is not None
    start, end = longer.spans.vision
    assert (start, end) == (row.spans.vision[0], row.spans.vision[1] + 3)
    assert longer.features is not None
    assert torch.equal(longer.features.patches[-3:], prompt)
    for span in ("prompt", "target"):
        old, new = getattr(row.spans, span), getattr(longer.spans, span)
        assert row.ids[slice(*old)] == longer.ids[slice(*new)]
    assert longer.ids[longer.spans.last_prompt] == row.ids[row.spans.last_prompt]
    with pytest.raises(ContextTooLong, match="soft prompt"):
        with_soft_prompt(row, torch.zeros(200, backbone.hidden_size), backbone)


def test_only_what_the_router_applies_gets_a_soft_prompt(tiny_model: EditableModel) -> None:
    baseline = baseline_of(tiny_model, "recipe")
    baseline.edit(REQUEST)
    rows = [PromptRow("Q?", REQUEST.image), PromptRow("Q?", OTHER.image), PromptRow("Q?", None)]

    batch, acting = baseline.begin(rows)

    plain = tiny_model.backbone.prepare(rows)
    assert acting.fired == [1, 0, 0]
    assert [d.applied != () for d in acting.decisions] == [True, False, False]
    extra = [len(a.ids) - len(b.ids) for a, b in zip(batch.rows, plain.rows, strict=True)]
    assert extra == [baseline.settings.tokens, 0, 0]
