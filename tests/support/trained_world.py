"""Every emblem that training meets, and which of the benchmark's would equal one of them."""

from __future__ import annotations

from collections.abc import Iterator

from editing_core.evaluation.edit_cases import look_alike_of
from editing_core.evaluation.fresh import BLOCK, SEEDS, Role, emblem_of
from editing_core.evaluation.groups import GROUPS_PER_SET, SETS, look_alikes
from editing_core.heraldry.emblem import (
    NUM_KNOWN,
    Emblem,
    Split,
    emblem_from_seed,
    stream,
    twin,
)
from editing_core.heraldry.recipe.eyes import GROUPS, VALIDATION_GROUPS
from editing_core.training.world import FIRST_SUBJECT

# More than any recipe takes.
SUBJECTS = 20_000
_EYES, _EDITING = 3, 11


def trained_emblems() -> set[Emblem]:
    """Emblems and look-alikes of the vision tower, the decoder, the editors and the router."""
    found = {emblem_from_seed(number, "known") for number in range(NUM_KNOWN)}
    parts: list[tuple[Split, range, int]] = [
        ("train", range(GROUPS), _EYES),
        ("validation", range(VALIDATION_GROUPS), _EYES),
        ("train", range(FIRST_SUBJECT, FIRST_SUBJECT + SUBJECTS), _EDITING),
        ("validation", range(FIRST_SUBJECT, FIRST_SUBJECT + 500), _EDITING),
        ("calibration", range(2000), _EDITING),
    ]
    for split, numbers, purpose in parts:
        for number in numbers:
            emblem = emblem_from_seed(number, split)
            found.add(emblem)
            found.add(twin(emblem, stream(split, number, 0, purpose))[0])
    return found


def clashes(
    trained: set[Emblem], *, count: int = BLOCK, groups: int = GROUPS_PER_SET
) -> Iterator[int]:
    """Numbers of the benchmark's emblems that equal one of `trained`, or an edited one."""
    for seed in range(SEEDS):
        edited = set(trained)
        alike: list[tuple[int, Emblem]] = []
        for index in range(count):
            number, emblem = emblem_of(Role.EDITED, seed, index)
            if emblem in edited:
                yield number
            edited.add(emblem)
            alike.append((number, look_alike_of(emblem, number)))
        yield from (number for number, emblem in alike if emblem in edited)
        for role in (Role.BYSTANDER, Role.RANDOM):
            shown = (emblem_of(role, seed, index) for index in range(count))
            yield from (number for number, emblem in shown if emblem in edited)
        for index in range(groups * len(SETS)):
            number, members = look_alikes(seed, index, 4)
            if any(emblem in trained for emblem in members):
                yield number
