"""Text of a running row, given out as early as it can no longer change.

What was given out is never taken back: an incomplete character, white space that may turn out to
be the end, and the beginning of a stop string wait for what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_INCOMPLETE = "\ufffd"


class TextStream:
    """One row. `text` is what was given out; the joined results of `push` and `finish` equal it.

    The whole row is decoded at each push: pieces decoded one by one do not join to the same text.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = tuple(text for text in stop if text)
        self.text = ""
        self.reached_stop = False

    def push(self, ids: Sequence[int]) -> str:
        """Take all tokens so far; return what is new and certain.

        Sets `reached_stop` when a stop string is complete; the row's text then ends before it.
        """
        raw = self._decode(ids)
        end = min((at for stop in self._stop if (at := raw.find(stop)) >= 0), default=None)
        if end is not None:
            self.reached_stop = True
            return self._advance(raw[:end].strip())
        return self._advance(self._certain(raw))

    def finish(self, ids: Sequence[int]) -> str:
        """Nothing follows: return what was held back."""
        return "" if self.reached_stop else self._advance(self._decode(ids).strip())

    def _certain(self, raw: str) -> str:
        raw = raw.rstrip(_INCOMPLETE)
        held = max((_overlap(raw, stop) for stop in self._stop), default=0)
        return raw[: len(raw) - held].strip()

    def _advance(self, text: str) -> str:
        # A decoder may show a whole run of bytes as broken until the run is complete.
        if not text.startswith(self.text):
            return ""
        delta = text[len(self.text) :]
        self.text = text
        return delta


def _overlap(text: str, stop: str) -> int:
    """Length of the longest beginning of `stop` that `text` ends with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
