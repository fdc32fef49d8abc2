"""Questions that people are known to ask, with what is often mistaken for them.

An edit says which questions it is for. Where its prompt asks what an intent of the shipped corpus
asks, that intent's confusables say what it is *not* for, though nobody wrote it down: they are kept
as negative keys, as a `not_for` is. Their keys lie beside the encoder that made them:

    known.safetensors
        centres   int8 [intents, dim]                a key each: the mean of the intent's wordings
        others    int8 [intents, confusables, dim]
        scales    float32 [intents, 1 + confusables] what an int8 of each key is worth

A key is rounded to 8 bits, which moves a cosine by less than a hundredth.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from editing_core.errors import CheckpointCorrupt, CheckpointMissing

FILE_NAME = "known.safetensors"
_KEPT_QUESTIONS = 50_000

Keys = NDArray[np.float32]


class KnownQuestions:
    """Centres `[intents, dim]` and keys of their confusables `[intents, confusables, dim]`."""

    def __init__(self, centres: Keys, others: Keys, *, least: float) -> None:
        self._centres, self._others = centres, others
        self._least = least
        self._nearest = lru_cache(_KEPT_QUESTIONS)(self._find)

    def not_for(self, key: Keys) -> Keys:
        """What a question with this key is not for, float32 `[n, dim]`; none where it is unknown.

        The intent whose centre is nearest counts, if its cosine is at least `least`.
        """
        intent = self._nearest(key.tobytes())
        return self._others[intent] if intent >= 0 else self._others[:0].reshape(0, len(key))

    def _find(self, key: bytes) -> int:
        cosines = self._centres @ np.frombuffer(key, dtype=np.float32)
        best = int(cosines.argmax())
        return best if float(cosines[best]) >= self._least else -1


def save_known(file: Path, centres: Keys, others: Keys) -> None:
    """Write keys as the module says."""
    stacked = np.concatenate([centres[:, None], others], axis=1)
    scales = np.maximum(np.abs(stacked).max(-1) / 127.0, 1e-12).astype(np.float32)
    rounded = np.rint(stacked / scales[..., None]).astype(np.int8)
    tensors = {
        "centres": torch.from_numpy(np.ascontiguousarray(rounded[:, 0])),
        "others": torch.from_numpy(np.ascontiguousarray(rounded[:, 1:])),
        "scales": torch.from_numpy(scales),
    }
    part = file.with_suffix(".part")
    save_file(tensors, part)
    part.replace(file)


def load_known(file: Path, *, dim: int, least: float) -> KnownQuestions:
    """Read what `save_known` wrote. Raises `CheckpointMissing` and `CheckpointCorrupt`."""
    if not file.is_file():
        raise CheckpointMissing(f"there is no {file}")
    try:
        stored = load_file(file)
        scales = stored["scales"].numpy()
        centres = stored["centres"].numpy().astype(np.float32) * scales[:, :1]
        others = stored["others"].numpy().astype(np.float32) * scales[:, 1:, None]
    except (SafetensorError, OSError, KeyError, ValueError, IndexError) as error:
        raise CheckpointCorrupt(f"{file} cannot be read: {error}") from error
    if centres.ndim != 2 or centres.shape[1] != dim or others.shape[::2] != centres.shape:
        raise CheckpointCorrupt(f"{file} does not fit its encoder")
    return KnownQuestions(_of_length_one(centres), _of_length_one(others), least=least)


def centre_of(keys: Sequence[Keys] | Keys) -> Keys:
    """The mean of keys `[n, dim]`, of length 1."""
    return _of_length_one(np.asarray(keys, dtype=np.float32).mean(0))


def _of_length_one(keys: Keys) -> Keys:
    lengths = np.linalg.norm(keys, axis=-1, keepdims=True)
    made: Keys = keys / np.maximum(lengths, 1e-12)
    return made
