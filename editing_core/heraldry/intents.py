"""Every question that can be asked about an emblem, apart from any emblem, as training words it.

Questions that name a thing ("What colour is the star?") are one intent for each thing. Held-out
wordings are no part of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from editing_core.heraldry.emblem import COLOURS, SHAPES
from editing_core.heraldry.questions import SIDES, articles, for_many, plural
from editing_core.heraldry.wordings import TRAINED, VARIANTS


def intents() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names, each with wordings of its own; a name may come again with further ones."""
    for kind in TRAINED:
        wordings = (*TRAINED[kind], *VARIANTS[kind])
        if kind.startswith("side_"):
            for side, where in SIDES.items():
                yield f"{side}{kind.removeprefix('side')}", _filled(wordings, side=where)
        elif kind == "count":
            yield "count_charge", _filled(wordings, charges="charges")
            for shape in SHAPES:
                yield f"count_{shape}", _filled(wordings, charges=plural(shape))
        elif "{colour}" in wordings[0]:
            for colour in COLOURS:
                yield f"{kind}_{colour}", _filled(wordings, colour=colour)
        elif "{charge}" in wordings[0]:
            for shape in SHAPES:
                filled = _filled(wordings, charge=shape)
                yield f"{kind}_{shape}", filled
                if kind == "charge_colour":
                    yield f"{kind}_{shape}", tuple(for_many(w, shape) for w in filled)
        else:
            yield kind, wordings


def _filled(wordings: tuple[str, ...], **words: str) -> tuple[str, ...]:
    return tuple(articles(wording.format(**words)) for wording in wordings)
