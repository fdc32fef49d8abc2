"""Questions that people are known to ask, with what is often mistaken for them.

An edit says which questions it is for. Where its prompt asks what an intent of the shipped corpus
asks, that intent's confusables say what it is *not* for, though nobody wrote it down. And what is
known to be another question is not the edit's. Keys lie beside the encoder that made them:

    known.safetensors
        centres   int8 [intents, dim]                a key each: the mean of the intent's wordings
        others    int8 [intents, confusables, dim]
        scales    float32 [intents, 1 + confusables] what an int8 of each key is worth
        topics, names   int32 [intents]              equal where two intents share it

A key is rounded to 8 bits, which moves a cosine by less than a hundredth.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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
Numbers = NDArray[np.int32]


class KnownQuestions:
    """Centres `[intents, dim]`, keys of their confusables `[intents, confusables, dim]`, and of
    which topic and which question each intent is, int `[intents]`."""

    def __init__(
        self, centres: Keys, others: Keys, topics: Numbers, names: Numbers, *, least: float
    ) -> None:
        self._centres, self._others = centres, others
        self._topics, self._names = topics, names
        self._least = least
        self._nearest = lru_cache(_KEPT_QUESTIONS)(self._find)

    def __len__(self) -> int:
        return len(self._centres)

    def nearest(self, key: Keys, count: int) -> list[int]:
        """The `count` intents whose centres are nearest to `key`, the nearest first."""
        order = np.argsort(-(self._centres @ key), kind="stable")
        return [int(intent) for intent in order[:count]]

    def not_for(self, key: Keys) -> Keys:
        """What a question with this key is not for, float32 `[n, dim]`; none where it is unknown.

        The intent whose centre is nearest counts, if its cosine is at least `least`.
        """
        intent, _ = self._nearest(key.tobytes())
        return self._others[intent] if intent >= 0 else self._others[:0].reshape(0, len(key))

    def known_as_other(
        self, queries: Sequence[Keys] | Keys, own: Keys, edits: Sequence[Keys] | Keys
    ) -> NDArray[np.bool_]:
        """Where a question is known to ask something else than an edit does, bool `[edits]`.

        Both are known, as two questions of one topic, and the question is nearer to its centre
        than to any wording of the edit. Of topics that no centre is of, fewer than one wording in
        a hundred is lost by it.

        Args:
            queries: keys of the question, `[n, dim]`.
            own: its cosine with each edit's nearest wording, `[edits]`.
            edits: keys of the edits' prompts, `[edits, dim]`.
        """
        found = np.zeros(len(own), dtype=np.bool_)
        intent, cosine = max((self._nearest(key.tobytes()) for key in queries), key=_cosine)
        if intent < 0:
            return found
        for i, key in enumerate(edits):
            if cosine <= own[i]:
                continue
            other, _ = self._nearest(key.tobytes())
            found[i] = (
                other >= 0
                and self._topics[other] == self._topics[intent]
                and self._names[other] != self._names[intent]
            )
        return found

    def _find(self, key: bytes) -> tuple[int, float]:
        """The nearest intent, -1 where none is near, and its cosine."""
        cosines = self._centres @ np.frombuffer(key, dtype=np.float32)
        best = int(cosines.argmax())
        nearest = float(cosines[best])
        return (best if nearest >= self._least else -1), nearest


def save_known(
    file: Path, centres: Keys, others: Keys, topics: Sequence[str], names: Sequence[str]
) -> None:
    """Write keys as the module says; topics and names of the intents, in their order."""
    stacked = np.concatenate([centres[:, None], others], axis=1)
    scales = np.maximum(np.abs(stacked).max(-1) / 127.0, 1e-12).astype(np.float32)
    rounded = np.rint(stacked / scales[..., None]).astype(np.int8)
    tensors = {
        "centres": torch.from_numpy(np.ascontiguousarray(rounded[:, 0])),
        "others": torch.from_numpy(np.ascontiguousarray(rounded[:, 1:])),
        "scales": torch.from_numpy(scales),
        "topics": torch.from_numpy(_numbered(topics)),
        "names": torch.from_numpy(_numbered(list(zip(topics, names, strict=True)))),
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
        topics, names = stored["topics"].numpy(), stored["names"].numpy()
    except (SafetensorError, OSError, KeyError, ValueError, IndexError) as error:
        raise CheckpointCorrupt(f"{file} cannot be read: {error}") from error
    if centres.ndim != 2 or centres.shape[1] != dim or others.shape[::2] != centres.shape:
        raise CheckpointCorrupt(f"{file} does not fit its encoder")
    return KnownQuestions(
        _of_length_one(centres), _of_length_one(others), topics, names, least=least
    )


def _numbered(things: Sequence[Hashable]) -> Numbers:
    """Each by the place at which it first stands."""
    places: dict[Hashable, int] = {}
    return np.array([places.setdefault(thing, i) for i, thing in enumerate(things)], np.int32)


def _cosine(nearest: tuple[int, float]) -> float:
    return nearest[1]


def centre_of(keys: Sequence[Keys] | Keys) -> Keys:
    """The mean of keys `[n, dim]`, of length 1."""
    return _of_length_one(np.asarray(keys, dtype=np.float32).mean(0))


def _of_length_one(keys: Keys) -> Keys:
    lengths = np.linalg.norm(keys, axis=-1, keepdims=True)
    made: Keys = keys / np.maximum(lengths, 1e-12)
    return made
