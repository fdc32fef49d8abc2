"""Which emblems the benchmark shows: none that training met, no bystander that is also edited.

Splits never share a random stream, yet by equal choice of every attribute about one emblem in a
thousand of `unseen` equals one of training's. The numbers of those are listed here and replaced;
`tests/unit/evaluation/test_fresh.py` proves the list against training's own emblems.
"""

from __future__ import annotations

from enum import Enum

from editing_core.evaluation.taken import TAKEN
from editing_core.heraldry.emblem import Emblem, emblem_from_seed

BLOCK = 10_000
"""How many emblems a role has for each seed."""
SEEDS = 3
"""Seeds for which the list is complete. Others are as unseen, but for such chance equals."""
_SPARE = 5_000_000


class Role(Enum):
    """What an emblem is shown for; the value is the first number of its block."""

    EDITED = 700_000
    BYSTANDER = 800_000
    RANDOM = 900_000
    GROUPED = 1_000_000


def emblem_of(role: Role, seed: int, index: int) -> tuple[int, Emblem]:
    """The `index`-th emblem of a role under a seed of the run, with its number in the split."""
    number = role.value + BLOCK * seed + index
    while number in TAKEN:
        number += _SPARE
    return number, emblem_from_seed(number)
