"""Conversations through a chat template: the template's text around the words of each turn.

The template is rendered once, with a mark in place of the words, so that nothing a user types is
ever read as a part of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from editing_core.errors import CheckpointUnsupported, TurnsNotWritable
from editing_core.types import Turn

Render = Callable[[list[dict[str, Any]], bool], str]
"""(messages, add_generation_prompt) -> text, as the checkpoint's chat template writes it."""

# Noncharacters cannot occur in decoded user text and survive a template's `trim`.
_MARK = re.compile("\ufdd0([0-9]+)\ufdd1")
_BETWEEN = "\n\n"


def write_turns(render: Render, turns: Sequence[Turn]) -> list[str]:
    """What the template writes before, between and after the turns' words: one piece more.

    A picture stands before the words of its turn, as the template's own placeholder. Where the
    template has no place for a system turn, its words begin the first turn of the user. Raises
    `TurnsNotWritable`.
    """
    pieces = _pieces(render, [[turn] for turn in turns])
    if pieces is None and turns[0].role == "system" and len(turns) > 1:
        pieces = _pieces(render, [list(turns[:2]), *([turn] for turn in turns[2:])])
    if pieces is None:
        roles = ", ".join(turn.role for turn in turns)
        raise TurnsNotWritable(f"the model's chat template cannot write these turns: {roles}")
    return pieces


def _pieces(render: Render, messages: Sequence[Sequence[Turn]]) -> list[str] | None:
    """As `write_turns`, of turns that share messages; None where the template does not show all."""
    written, count = [], 0
    for message in messages:
        marks = [f"\ufdd0{count + i}\ufdd1" for i in range(len(message))]
        count += len(message)
        shown = sum(len(turn.images) for turn in message)
        content = [*[{"type": "image"}] * shown, {"type": "text", "text": _BETWEEN.join(marks)}]
        written.append({"role": message[-1].role, "content": content})
    try:
        text = render(written, True)
    except CheckpointUnsupported:
        return None
    pieces = _MARK.split(text)
    if pieces[1::2] != [str(i) for i in range(count)]:
        return None
    return pieces[::2]
