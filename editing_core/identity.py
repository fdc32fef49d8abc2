"""What makes two pictures, or two prompts, the same: the two halves of an edit's slot.

In a slot, the newest edit that is not rolled back counts; the others are superseded.
"""

from __future__ import annotations

import hashlib
import struct
import unicodedata
from typing import TYPE_CHECKING

import numpy as np

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
    return " ".join(unicodedata.normalize("NFC", prompt).split())
