"""What makes two pictures, or two prompts, the same: the two halves of an edit's slot.

In a slot, the newest edit that is not rolled back counts; the others are superseded.
"""

from __future__ import annotations

import functools
import hashlib
import re
import struct
import unicodedata
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # what decodes and compares pictures needs no torch
    from editing_core.types import ImageArray


def image_digest(pixels: ImageArray) -> str:
    """`sha256:...` over size and pixels, so that a lossless re-encoding is the same picture."""
    height, width, _ = pixels.shape
    digest = hashlib.sha256(b"errata-image-v1" + struct.pack("<II", width, height))
    digest.update(np.ascontiguousarray(pixels).data)
    return f"sha256:{digest.hexdigest()}"


def slot_prompt(prompt: str) -> str:
    """A prompt as slots compare it: NFC, trimmed, single spaces."""
    return " ".join(nfc(prompt).split())


MAX_MARKS = 30
"""Combining marks in a row: what Unicode calls stream-safe, and more than any language writes."""

_LAST_MARK = 0x1FFFF
_AT_ONCE = 1_000_000


def nfc(text: str) -> str:
    """Unicode's NFC, in a time that grows no faster than the text.

    Python puts the marks of a run in order one by one, so that a run of a hundred thousand takes
    minutes. Here long runs are sorted first, which is what that order is (UAX 15, D109).
    """
    if is_tangled(text):
        classes = "".join(map(chr, np.flatnonzero(_marks())))
        text = re.sub(f"[{classes}]{{{MAX_MARKS},}}", lambda run: _in_order(run.group()), text)
    return unicodedata.normalize("NFC", text)


def is_tangled(text: str) -> bool:
    """Whether more than `MAX_MARKS` combining marks stand in a row somewhere."""
    if text.isascii():
        return False
    for start in range(0, len(text), _AT_ONCE):
        piece = text[start : start + _AT_ONCE + MAX_MARKS]
        codes = np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        others = np.flatnonzero(~_marks()[np.minimum(codes, _LAST_MARK)])
        if np.diff(others, prepend=-1, append=len(piece)).max() > MAX_MARKS + 1:
            return True
    return False


def _in_order(run: str) -> str:
    parts = "".join(unicodedata.normalize("NFD", mark) for mark in run)
    return "".join(sorted(parts, key=unicodedata.combining))


@functools.cache
def _marks() -> NDArray[np.bool_]:
    """For every code point up to `_LAST_MARK`: does it combine, by itself or once decomposed?"""
    decomposed = (unicodedata.normalize("NFD", chr(code)) for code in range(_LAST_MARK + 1))
    return np.array([unicodedata.combining(each[0]) > 0 for each in decomposed])
