"""Where in a decoder edits act, and where routing reads, until somebody measures better.

    edit layer     seven tenths of the way between the first and the last block
    router layer   the middle, never above the edit layer

LiveEdit edits block 21 of LLaVA's 32 (its section 4.1), the embedded model was trained with block 1
of 4; `int(0.7 * (blocks - 2))` gives both. Earlier, what was seen has not yet reached the words;
later, too few blocks are left to make an answer of what was added, and none after the last. Words
say most alike what they mean about halfway up: below, they are still spellings, above, already the
beginnings of an answer. `errata attribute` shows what one question's layers do.
"""

from __future__ import annotations

_SHARE = 0.7


def edit_layer_for(num_layers: int) -> int:
    """The block whose output edits change, counted from 0."""
    return max(0, int(_SHARE * (num_layers - 2)))


def router_layer_for(num_layers: int) -> int:
    """The block whose output a router of frozen features reads."""
    return min(edit_layer_for(num_layers), num_layers // 2)
