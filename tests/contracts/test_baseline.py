"""What every baseline must do, whatever its method; each registered one is put through it."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from editing_core.backbones.batch import PromptRow
from editing_core.editable_model import EditableModel
from editing_core.errors import ContextTooLong, TargetNotEncodable
from editing_core.evaluation.baseline_contender import BaselineContender
from editing_core.evaluation.baseline_tuning import validation_cases
from editing_core.evaluation.contender import Query
from editing_core.registry import BASELINES
from editing_core.types import EditRequest
from tests.support.baselines import (
    OTHER,
    REQUEST,
    base_logits,
    baseline_of,
    contender_of,
    logits_of,
)
from tests.support.tiny_model import tiny_image

pytestmark = pytest.mark.parametrize("name", sorted(BASELINES))

# What only tells the model the correction changes what it is asked; whether it heeds that is its
# own affair, and the one that ships does not.
ONLY_TELLS = {"in_context"}


def test_one_edit_takes(embedded_model: EditableModel, name: str) -> None:
    contender = BaselineContender.named(name, embedded_model)
    case = next(validation_cases(1))
    query = Query(case.image, case.prompt)
    (before,) = contender.answer([query])

    contender.edit(case.request)
    (after,) = contender.answer([query])

    assert before.text != case.target
    if name in ONLY_TELLS:
        asked = contender.baseline.prompt_for(case.prompt, case.image)
        assert case.target in asked
        assert asked.endswith(case.prompt)
    else:
        assert (after.text, after.stopped) == (case.target, True)


def test_the_base_model_comes_back_bit_for_bit(tiny_model: EditableModel, name: str) -> None:
    backbone = tiny_model.backbone
    decoder, projector = backbone.decoder, backbone.projector
    weights = [w.clone() for m in (decoder, projector) for w in m.state_dict().values()]
    before = base_logits(tiny_model, REQUEST.prompt, REQUEST.image)
    baseline = baseline_of(tiny_model, name)

    baseline.edit(REQUEST)
    edited = logits_of(baseline, REQUEST.prompt, REQUEST.image)
    with pytest.raises(KeyError), baseline.in_force():
        raise KeyError

    after = base_logits(tiny_model, REQUEST.prompt, REQUEST.image)
    assert torch.equal(before, after)
    assert edited.shape != before.shape or not torch.equal(edited, before)
    now = [w for m in (decoder, projector) for w in m.state_dict().values()]
    assert all(torch.equal(old, new) for old, new in zip(weights, now, strict=True))
    for module in (*decoder.modules(), *projector.modules()):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not any(p.requires_grad for m in (decoder, projector) for p in m.parameters())


def test_without_edits_it_is_the_base_model(tiny_model: EditableModel, name: str) -> None:
    baseline = baseline_of(tiny_model, name)

    for image in (REQUEST.image, None):
        expected = base_logits(tiny_model, REQUEST.prompt, image)
        assert torch.equal(logits_of(baseline, REQUEST.prompt, image), expected)


def test_reset_forgets(tiny_model: EditableModel, name: str) -> None:
    baseline = baseline_of(tiny_model, name)
    baseline.edit(REQUEST)
    baseline.edit(OTHER)

    baseline.reset()

    expected = base_logits(tiny_model, REQUEST.prompt, REQUEST.image)
    assert torch.equal(logits_of(baseline, REQUEST.prompt, REQUEST.image), expected)


def test_the_same_edits_give_the_same_answers(tiny_model: EditableModel, name: str) -> None:
    found = []
    for _ in range(2):
        baseline = baseline_of(tiny_model, name, seed=3)
        baseline.edit(REQUEST)
        baseline.edit(OTHER)
        found.append(logits_of(baseline, OTHER.prompt, OTHER.image))
    baseline.reset()
    baseline.edit(REQUEST)
    baseline.edit(OTHER)
    found.append(logits_of(baseline, OTHER.prompt, OTHER.image))

    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_what_cannot_be_edited_changes_nothing(tiny_model: EditableModel, name: str) -> None:
    baseline = baseline_of(tiny_model, name)

    with pytest.raises(TargetNotEncodable):
        baseline.edit(EditRequest(REQUEST.image, REQUEST.prompt, " "))
    with pytest.raises(ContextTooLong):
        baseline.edit(EditRequest(REQUEST.image, "long " * 200, "a"))

    expected = base_logits(tiny_model, REQUEST.prompt, REQUEST.image)
    assert torch.equal(logits_of(baseline, REQUEST.prompt, REQUEST.image), expected)


def test_rows_of_a_batch_do_not_disturb_each_other(tiny_model: EditableModel, name: str) -> None:
    contender = contender_of(baseline_of(tiny_model, name))
    contender.edit(REQUEST)
    queries = [
        Query(REQUEST.image, REQUEST.prompt),
        Query(None, "the"),
        Query(tiny_image(9), "A question of quite another length?"),
    ]

    together = contender.answer(queries)

    alone = [contender.answer([query])[0] for query in queries]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert [reply.fired for reply in together] == [reply.fired for reply in alone]


def test_it_is_asked_with_pictures(tiny_model: EditableModel, name: str) -> None:
    features = tiny_model.backbone.image_features([REQUEST.image])[0]

    with pytest.raises(TypeError, match="pictures"):
        baseline_of(tiny_model, name).begin([PromptRow("What?", features)])


def test_the_grid_is_about_its_settings(tiny_model: EditableModel, name: str) -> None:
    del tiny_model
    kind = BASELINES.resolve(name)

    defaults = kind.settings_type()
    assert kind.name == name
    assert set(kind.grid) == {field.name for field in fields(defaults)}
    for setting, values in kind.grid.items():
        assert getattr(defaults, setting) in values
