"""What an emblem is: a value drawn from a seed, and its look-alikes that differ in one attribute.

The world is a large product of small choices (outline x pattern x colours x border x charges x
layout), so that unseen emblems never run out and every answer about them is known by construction.
This module draws nothing and imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (206, 32, 41),
    "orange": (247, 141, 20),
    "yellow": (247, 217, 32),
    "green": (24, 132, 56),
    "teal": (48, 192, 196),
    "blue": (22, 62, 190),
    "purple": (122, 34, 160),
    "pink": (247, 150, 190),
    "white": (246, 246, 244),
    "black": (22, 22, 24),
}
COLOURS = tuple(PALETTE)
OUTLINES = ("shield", "roundel", "flag", "banner", "hexagon", "pennant")
PATTERNS = (
    "plain",
    "halved",
    "parted",
    "quartered",
    "diagonal",
    "barred",
    "striped",
    "chequered",
    "crossed",
)
SHAPES = (
    "star",
    "disc",
    "square",
    "triangle",
    "diamond",
    "cross",
    "crescent",
    "heart",
    "ring",
    "arrow",
    "tree",
    "fish",
    "crown",
    "hourglass",
)
PLACES = ("centre", "top", "bottom", "left", "right")
PAIRINGS = ("side by side", "stacked")
MAX_COUNT = 5
NUM_KNOWN = 300

Split = Literal["unseen", "known", "train", "validation", "calibration"]
# The first number of every random stream. Splits never share a stream, so training can never meet
# an emblem of `unseen` except by equal choice of every attribute.
_STREAMS: dict[str, int] = {
    "unseen": 101,
    "known": 102,
    "train": 103,
    "validation": 104,
    "calibration": 105,
}


@dataclass(frozen=True, slots=True)
class Charge:
    """A device borne on the field."""

    shape: str
    colour: str


@dataclass(frozen=True, slots=True)
class Emblem:
    """One emblem. With one charge it is repeated `count` times; with two, each stands once.

    `second_colour` is None exactly on plain fields, `border` is None where there is none. `place`
    says where a lone charge stands, or how two different ones are arranged, and is empty for
    repeated charges.
    """

    outline: str
    pattern: str
    field_colour: str
    second_colour: str | None
    border: str | None
    charges: tuple[Charge, ...]
    count: int
    place: str

    @property
    def is_pair(self) -> bool:
        return len(self.charges) == 2

    @property
    def field_colours(self) -> tuple[str, ...]:
        """The field's colours in the palette's order, so that "which two" has one answer."""
        present = {self.field_colour, self.second_colour}
        return tuple(colour for colour in COLOURS if colour in present)

    def attributes(self) -> dict[str, str]:
        """What can be seen in this emblem, by name; the keys are what `change` accepts."""
        seen = {"outline": self.outline, "pattern": self.pattern, "field_colour": self.field_colour}
        if self.second_colour is not None:
            seen["second_colour"] = self.second_colour
        seen["border"] = self.border or "none"
        if self.is_pair:
            first, second = self.charges
            names = pair_names(self.place)
            seen["arrangement"] = self.place
            for name, charge in zip(names, (first, second), strict=True):
                seen[f"{name}_shape"] = charge.shape
                seen[f"{name}_colour"] = charge.colour
            return seen
        seen["charge_shape"] = self.charges[0].shape
        seen["charge_colour"] = self.charges[0].colour
        seen["count"] = str(self.count)
        if self.count == 1:
            seen["position"] = self.place
        return seen


def pair_names(place: str) -> tuple[str, str]:
    """What the two charges of a pair are called, in drawing order."""
    return ("left", "right") if place == "side by side" else ("upper", "lower")


def stream(split: Split, *parts: int) -> np.random.Generator:
    """The random stream of a split and whatever numbers follow; equal arguments, equal stream."""
    return np.random.default_rng([_STREAMS[split], *parts])


def emblem_from_seed(seed: int, split: Split = "unseen") -> Emblem:
    """The emblem of a seed. Under `known` the seed is taken modulo the number of known emblems."""
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    if split == "known":
        seed %= NUM_KNOWN
    return sample_emblem(stream(split, seed))


def sample_emblem(rng: np.random.Generator) -> Emblem:
    """Draw an emblem in which every attribute can be told by eye."""
    pattern = _pick(rng, PATTERNS)
    field = _pick(rng, COLOURS)
    second = None if pattern == "plain" else _pick(rng, COLOURS, field)
    border = None if rng.random() < 0.2 else _pick(rng, COLOURS, field, second)
    if rng.random() < 0.33:
        shapes = rng.choice(len(SHAPES), size=2, replace=False)
        charges = tuple(Charge(SHAPES[i], _pick(rng, COLOURS, field, second)) for i in shapes)
        return Emblem(
            _pick(rng, OUTLINES), pattern, field, second, border, charges, 1, _pick(rng, PAIRINGS)
        )
    charge = Charge(_pick(rng, SHAPES), _pick(rng, COLOURS, field, second))
    count = int(rng.integers(1, MAX_COUNT + 1))
    place = ""
    if count == 1:
        place = "centre" if rng.random() < 0.4 else _pick(rng, PLACES, "centre")
    return Emblem(_pick(rng, OUTLINES), pattern, field, second, border, (charge,), count, place)


def change(emblem: Emblem, attribute: str, rng: np.random.Generator) -> Emblem:
    """The emblem's look-alike: `attribute`, a key of `attributes()`, visibly different.

    Raises:
        KeyError: the emblem does not show that attribute.
    """
    if attribute not in emblem.attributes():
        known = ", ".join(emblem.attributes())
        raise KeyError(f"this emblem shows no '{attribute}'; it shows: {known}")
    field, second = emblem.field_colour, emblem.second_colour
    charge_colours = [charge.colour for charge in emblem.charges]
    if attribute == "outline":
        return replace(emblem, outline=_pick(rng, OUTLINES, emblem.outline))
    if attribute == "pattern":
        pattern = _pick(rng, PATTERNS, "plain", emblem.pattern)
        # A plain field can only change its pattern by gaining a second colour.
        second = second or _pick(rng, COLOURS, field, emblem.border, *charge_colours)
        return replace(emblem, pattern=pattern, second_colour=second)
    if attribute == "field_colour":
        colour = _pick(rng, COLOURS, field, second, emblem.border, *charge_colours)
        return replace(emblem, field_colour=colour)
    if attribute == "second_colour":
        colour = _pick(rng, COLOURS, field, second, emblem.border, *charge_colours)
        return replace(emblem, second_colour=colour)
    if attribute == "border":
        options = [c for c in (None, *COLOURS) if c not in (emblem.border, field, second)]
        return replace(emblem, border=options[int(rng.integers(len(options)))])
    if attribute == "count":
        count = int(rng.choice([n for n in range(1, MAX_COUNT + 1) if n != emblem.count]))
        return replace(emblem, count=count, place="centre" if count == 1 else "")
    if attribute == "position":
        return replace(emblem, place=_pick(rng, PLACES, emblem.place))
    if attribute == "arrangement":
        return replace(emblem, place=_pick(rng, PAIRINGS, emblem.place))
    which, _, aspect = attribute.partition("_")
    index = pair_names(emblem.place).index(which) if emblem.is_pair else 0
    charges = list(emblem.charges)
    if aspect == "shape":
        shape = _pick(rng, SHAPES, *(charge.shape for charge in emblem.charges))
        charges[index] = replace(charges[index], shape=shape)
    else:
        colour = _pick(rng, COLOURS, field, second, charges[index].colour)
        charges[index] = replace(charges[index], colour=colour)
    return replace(emblem, charges=tuple(charges))


def twin(emblem: Emblem, rng: np.random.Generator) -> tuple[Emblem, str]:
    """A look-alike that differs in one attribute chosen at random, and that attribute's name."""
    attribute = _pick(rng, tuple(emblem.attributes()))
    return change(emblem, attribute, rng), attribute


def _pick(rng: np.random.Generator, options: tuple[str, ...], *excluded: str | None) -> str:
    allowed = [option for option in options if option not in excluded]
    return allowed[int(rng.integers(len(allowed)))]
