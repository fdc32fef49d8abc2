"""Training by name: what an emblem shows as classes, and keys pulled to their prototypes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from editing_core.heraldry.emblem import change, emblem_from_seed, stream
from editing_core.training.attributes import NOTHING_KNOWN, PARTS, UNKNOWN, attribute_classes
from editing_core.training.prototypes import Prototypes, RoutingPrototypes
from editing_core.training.world import EverydaySubject, subject


@pytest.mark.parametrize("seed", range(40))
def test_a_look_alike_differs_in_a_class_and_equal_emblems_in_none(seed: int) -> None:
    emblem = emblem_from_seed(seed, "validation")
    classes = attribute_classes(emblem)

    assert classes == attribute_classes(emblem_from_seed(seed, "validation"))
    assert all(0 <= c < len(part) for c, part in zip(classes, PARTS.values(), strict=True))
    for attribute in emblem.attributes():
        other = change(emblem, attribute, stream("validation", seed))
        assert attribute_classes(other) != classes, attribute


def test_nothing_is_known_about_an_everyday_picture() -> None:
    subjects = [subject(number, "train", everyday_share=0.5) for number in range(30)]

    for item in subjects:
        known = item.classes != (NOTHING_KNOWN, NOTHING_KNOWN)
        assert known != isinstance(item, EverydaySubject)


def test_a_key_is_pulled_to_the_prototype_of_its_class() -> None:
    torch.manual_seed(0)
    prototypes = Prototypes(4, 8)
    own = F.normalize(prototypes.vectors, dim=-1)

    right = prototypes.loss(own, torch.arange(4))
    wrong = prototypes.loss(own, torch.arange(4).roll(1))

    assert float(right.detach()) < float(wrong.detach())


def test_rows_of_which_nothing_is_known_count_for_nothing() -> None:
    torch.manual_seed(0)
    prototypes = Prototypes(4, 8)
    keys = F.normalize(torch.randn(3, 8), dim=-1)

    alone = prototypes.loss(keys[:1], torch.tensor([2]))
    beside = prototypes.loss(keys, torch.tensor([2, UNKNOWN, UNKNOWN]))
    nobody = prototypes.loss(keys, torch.full((3,), UNKNOWN))

    torch.testing.assert_close(alone, beside)
    assert float(nobody.detach()) == 0.0


def test_only_questions_that_come_up_often_have_a_prototype() -> None:
    numbers = torch.tensor([50] * 9 + [7] * 8 + [99])
    named = RoutingPrototypes([3], numbers, visual_width=4, text_width=8)
    keys = F.normalize(torch.randn(2, 8), dim=-1)

    assert named.numbers.tolist() == [7, 50]
    assert float(named.question_loss(keys, torch.tensor([99, 8])).detach()) == 0.0
    assert float(named.question_loss(keys, torch.tensor([50, 99])).detach()) > 0.0
