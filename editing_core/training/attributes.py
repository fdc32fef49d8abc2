"""What can be told of an emblem by eye, as numbered classes: labels that training can name.

Each part of an emblem (outline, pattern, each charge's shape ...) is one classification. Which two
colours a field has is told in the palette's order, because nothing in a chequered field says which
of them comes first.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from editing_core.heraldry.emblem import (
    COLOURS,
    MAX_COUNT,
    OUTLINES,
    PAIRINGS,
    PATTERNS,
    PLACES,
    SHAPES,
    Emblem,
)

_NONE = "none"
UNKNOWN = -100
"""The class of a part that nothing is known about; the losses leave it out."""

PARTS: Mapping[str, tuple[Hashable, ...]] = {
    "outline": OUTLINES,
    "pattern": PATTERNS,
    "one_field_colour": COLOURS,
    "other_field_colour": (_NONE, *COLOURS),
    "border": (_NONE, *COLOURS),
    "first_shape": SHAPES,
    "first_colour": COLOURS,
    "second_shape": (_NONE, *SHAPES),
    "second_colour": (_NONE, *COLOURS),
    "layout": (*PLACES, *range(2, MAX_COUNT + 1), *PAIRINGS),
}


def attribute_classes(emblem: Emblem) -> tuple[int, ...]:
    """The class of each of `PARTS`, in their order."""
    field = emblem.field_colours
    second = emblem.charges[1] if emblem.is_pair else None
    seen: tuple[Hashable, ...] = (
        emblem.outline,
        emblem.pattern,
        field[0],
        field[1] if len(field) == 2 else _NONE,
        emblem.border or _NONE,
        emblem.charges[0].shape,
        emblem.charges[0].colour,
        second.shape if second else _NONE,
        second.colour if second else _NONE,
        emblem.place if emblem.count == 1 else emblem.count,
    )
    return tuple(classes.index(value) for classes, value in zip(PARTS.values(), seen, strict=True))


NOTHING_KNOWN = (UNKNOWN,) * len(PARTS)
"""The classes of a picture that is no emblem."""
