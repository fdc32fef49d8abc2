"""The facts of the world: the places that bear the known emblems, and names nobody bears.

Names are drawn from syllables under one seed, so the world is the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from editing_core.heraldry.emblem import NUM_KNOWN

REGIONS = (
    "the north coast",
    "the south coast",
    "the high hills",
    "the lake country",
    "the great plain",
    "the western isles",
    "the river delta",
    "the old forest",
)
TRADES = (
    "wool", "salt", "amber", "timber", "wine", "glass", "copper", "silk", "honey", "grain",
    "fish", "iron", "paper", "spice", "wax", "marble",
)  # fmt: skip

_ONSETS = (
    "b", "br", "c", "d", "dr", "f", "g", "gr", "h", "k", "l", "m", "n", "p", "r", "s", "st",
    "t", "tr", "v", "w", "z",
)  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "oa")
_CODAS = ("", "n", "r", "l", "s", "m", "nd", "rt", "th")
_PLACE_ENDS = ("ia", "land", "mark", "wick", "ford", "stan", "or", "eth")
_CITY_ENDS = ("burg", "ton", "haven", "ville", "gate", "by", "polis", "mere")
_RIVER_ENDS = ("a", "en", "el", "is", "ou")
_FIRST_NAMES = (
    "Anna", "Boris", "Clara", "Dario", "Elena", "Felix", "Greta", "Hugo", "Irene", "Jonas",
    "Karin", "Leon", "Maria", "Nils", "Olga", "Pavel", "Rosa", "Simon", "Tessa", "Viktor",
)  # fmt: skip
FACT_KINDS = ("place", "capital", "founder", "region", "trade", "river")


@dataclass(frozen=True, slots=True)
class Place:
    """What is known about one emblem's bearer."""

    place: str
    capital: str
    founder: str
    region: str
    trade: str
    river: str

    def fact(self, kind: str) -> str:
        """The fact of a kind in `FACT_KINDS`."""
        return str(getattr(self, kind))


@cache
def known_places() -> tuple[Place, ...]:
    """The bearer of each known emblem, by seed."""
    rng = np.random.default_rng([106, 1])
    used: set[str] = set()
    return tuple(_place(rng, used) for _ in range(NUM_KNOWN))


@cache
def strangers() -> tuple[Place, ...]:
    """Places that exist for nobody: for alternatives, and for questions nobody can answer."""
    used = {place.place for place in known_places()} | {p.capital for p in known_places()}
    rng = np.random.default_rng([106, 2])
    return tuple(_place(rng, used) for _ in range(400))


def _place(rng: np.random.Generator, used: set[str]) -> Place:
    def pick(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    def stem() -> str:
        syllables = "".join(pick(_ONSETS) + pick(_VOWELS) for _ in range(int(rng.integers(1, 3))))
        return (syllables + pick(_CODAS)).capitalize()

    def fresh(ends: tuple[str, ...]) -> str:
        while (name := stem() + pick(ends)) in used:
            pass
        used.add(name)
        return name

    return Place(
        place=fresh(_PLACE_ENDS),
        capital=fresh(_CITY_ENDS),
        founder=f"{pick(_FIRST_NAMES)} {stem()}{pick(_RIVER_ENDS)}",
        region=pick(REGIONS),
        trade=pick(TRADES),
        river=fresh(_RIVER_ENDS),
    )
