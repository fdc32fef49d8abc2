"""Questions that people are known to ask, with what is often mistaken for them.

An edit says which questions it is for. Where its prompt asks what a known intent asks, more is
known of it than it says: other wordings, and questions that are not its own. Intents are those of
the corpus and those of the embedded world. Keys lie beside the encoder that made them:

    known.safetensors
        centres     int8 [centres, dim]    the mean of an intent's wordings; an intent may have many
        intents     int32 [centres]        whose centre it is
        topics      int32 [centres]        equal where two intents share it
        others      int8 [others, dim]     confusables
        others_of   int32 [others]         of which intent
        scales      float32 [centres + others]   what an int8 of each key is worth

A key is rounded to 8 bits, which moves a cosine by less than a hundredth.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from editing_core.errors import CheckpointCorrupt, CheckpointMissing

FILE_NAME = "known.safetensors"
_KEPT_PROMPTS = 50_000
# Chosen on topics and wordings apart from training; see docs/decisions/0021.
_NEARLY, _MARGIN = 1.3, 0.05
_CLEARLY = 0.1

Keys = NDArray[np.float32]
Numbers = NDArray[np.int32]
Name = tuple[str, str]
"""Topic and intent."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What is known of one question and some edits, in their order.

    `same` float32 `[edits]`: how surely both ask what one intent asks, as a cosine; -1 where that
    is not known. `excluded` bool `[edits]`: where the question is known not to be the edit's.
    """

    same: Keys
    excluded: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Prompt:
    """The intent that a prompt asks for: its cosine with the nearest centre, and the rows of all
    of its centres and of those confusables that are no wording of this very prompt."""

    intent: int
    topic: int
    cosine: float
    centres: NDArray[np.int64]
    others: NDArray[np.int64]


class KnownQuestions:
    """See the module. A question is a known one where a centre has cosine `least` or more."""

    def __init__(
        self,
        centres: Keys,
        intents: Numbers,
        topics: Numbers,
        others: Keys,
        others_of: Numbers,
        *,
        least: float,
    ) -> None:
        self._centres, self._intents, self._topics = centres, intents, topics
        self._others, self._others_of = others, others_of
        self._least = least
        self._prompt = lru_cache(_KEPT_PROMPTS)(self._find)

    def nearest(self, key: Keys, count: int, *, corpus: Sequence[Name]) -> list[int]:
        """Places in `corpus` of the `count` lines whose centres are nearest to `key`, the nearest
        first. None where the table was not made of it: its lines come first there, and which of
        them share an intent is compared."""
        size = len(corpus)
        if not np.array_equal(self._intents[:size], _numbered(corpus)):
            return []
        cosines = self._centres[:size] @ key
        return [int(place) for place in np.argsort(-cosines, kind="stable")[:count]]

    def judge(
        self, queries: Keys, own: Keys, prompts: Keys, which: NDArray[np.int64] | None = None
    ) -> Judged:
        """Compare a question with edits whose prompts are known.

        It is excluded where a confusable is nearer than the intent's centre, and nearer or nearly
        so than any wording of the edit; and where it is known as another intent of the topic, and
        both it and the prompt are clearly nearer to their own.

        Args:
            queries: keys of the question, `[n, dim]`.
            own: its cosine with each edit's nearest wording, `[edits]`.
            prompts: keys of the edits' prompts, `[prompts, dim]`, best each of them once.
            which: each edit's prompt, a row of `prompts`; by default edit i has row i.
        """
        cosines = (self._centres @ queries.T).max(1)
        nearest = int(cosines.argmax())
        sure = float(cosines[nearest])
        which = np.arange(len(own)) if which is None else which
        same = np.full(len(own), -1.0, dtype=np.float32)
        excluded = np.zeros(len(own), dtype=np.bool_)
        looked_up = ((i, self._prompt(key.tobytes())) for i, key in enumerate(prompts))
        found = {i: prompt for i, prompt in looked_up if prompt is not None}
        if not found:
            return Judged(same, excluded)
        # Of each known prompt; `rows` are the edits that have one, `of` which of the known it is.
        known = list(found.values())
        place = np.full(len(prompts), -1)
        place[list(found)] = np.arange(len(known))
        rows = np.flatnonzero(place[which] >= 0)
        of, mine = place[which[rows]], own[rows]
        # Prompts of one intent share confusables.
        others, again = np.unique(
            np.concatenate([each.others for each in known]), return_inverse=True
        )
        said = (self._others[others] @ queries.T).max(1, initial=-1.0)[again]
        other = highest_of_runs(said, _sizes([each.others for each in known]))[of]
        own_centres = cosines[np.concatenate([each.centres for each in known])]
        centre = highest_of_runs(own_centres, _sizes([each.centres for each in known]))[of]
        excluded[rows] = (other > centre - _MARGIN) & (1.0 - other < _NEARLY * (1.0 - mine))
        if sure >= self._least:
            at = np.array([each.cosine for each in known], dtype=np.float32)
            asks_same = np.array([each.intent for each in known]) == self._intents[nearest]
            is_near = np.array([each.topic for each in known]) == self._topics[nearest]
            same[rows] = np.where(asks_same, np.minimum(sure, at), -1.0)[of]
            is_clear = prompts[list(found)] @ self._centres[nearest] < at - _CLEARLY
            is_sure = sure > np.maximum(mine, centre + _CLEARLY)
            excluded[rows] |= (~asks_same & is_near & is_clear)[of] & is_sure
        return Judged(same, excluded)

    def _find(self, key: bytes) -> _Prompt | None:
        """What is known of a prompt; None where no centre is near."""
        prompt = np.frombuffer(key, dtype=np.float32)
        cosines = self._centres @ prompt
        best = int(cosines.argmax())
        cosine = float(cosines[best])
        if cosine < self._least:
            return None
        intent = int(self._intents[best])
        others = np.flatnonzero(self._others_of == intent)
        # The intent may be about another thing ("the rings", for a prompt about the crowns), and
        # have the prompt itself among its confusables.
        others = others[self._others[others] @ prompt <= cosine]
        centres = np.flatnonzero(self._intents == intent)
        return _Prompt(intent, int(self._topics[best]), cosine, centres, others)


def save_known(
    file: Path,
    centres: Keys,
    names: Sequence[Name],
    others: Keys,
    others_of: Sequence[Name],
) -> None:
    """Write keys `[n, dim]` of centres and confusables with the intents they belong to."""
    stacked = np.concatenate([centres, others])
    scales = np.maximum(np.abs(stacked).max(-1) / 127.0, 1e-12).astype(np.float32)
    rounded = np.rint(stacked / scales[:, None]).astype(np.int8)
    numbers = _numbered([*names, *others_of])
    tensors = {
        "centres": torch.from_numpy(rounded[: len(centres)].copy()),
        "others": torch.from_numpy(rounded[len(centres) :].copy()),
        "scales": torch.from_numpy(scales),
        "intents": torch.from_numpy(numbers[: len(names)].copy()),
        "others_of": torch.from_numpy(numbers[len(names) :].copy()),
        "topics": torch.from_numpy(_numbered([topic for topic, _ in names])),
    }
    part = file.with_suffix(".part")
    save_file(tensors, part)
    part.replace(file)


def load_known(file: Path, *, dim: int, least: float) -> KnownQuestions:
    """Read what `save_known` wrote. Raises `CheckpointMissing` and `CheckpointCorrupt`."""
    if not file.is_file():
        raise CheckpointMissing(f"there is no {file}")
    try:
        stored = {name: tensor.numpy() for name, tensor in load_file(file).items()}
        centres, others, scales = stored["centres"], stored["others"], stored["scales"]
        intents, topics, of = stored["intents"], stored["topics"], stored["others_of"]
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointCorrupt(f"{file} cannot be read: {error}") from error
    shapes = [part.shape for part in (centres, others, scales, intents, topics, of)]
    n, m = len(centres), len(others)
    if not n or shapes != [(n, dim), (m, dim), (n + m,), (n,), (n,), (m,)]:
        raise CheckpointCorrupt(f"{file} does not fit its encoder")
    return KnownQuestions(
        _of_length_one(centres * scales[:n, None]),
        intents,
        topics,
        _of_length_one(others * scales[n:, None]),
        of,
        least=least,
    )


def centre_of(keys: Sequence[Keys] | Keys) -> Keys:
    """The mean of keys `[n, dim]`, of length 1."""
    return _of_length_one(np.asarray(keys, dtype=np.float32).mean(0))


def _numbered(things: Sequence[Hashable]) -> Numbers:
    """Each by the place at which it first stands."""
    places: dict[Hashable, int] = {}
    return np.array([places.setdefault(thing, i) for i, thing in enumerate(things)], np.int32)


def _of_length_one(keys: Keys) -> Keys:
    lengths = np.linalg.norm(keys, axis=-1, keepdims=True)
    made: Keys = (keys / np.maximum(lengths, 1e-12)).astype(np.float32)
    return made


def highest_of_runs(values: Keys, counts: NDArray[np.int64]) -> Keys:
    """Of successive runs of `values`, as long as `counts` says; -1 of an empty one."""
    highest = np.full(len(counts), -1.0, dtype=np.float32)
    starts, has_any = np.cumsum(counts) - counts, counts > 0
    if has_any.any():
        highest[has_any] = np.maximum.reduceat(values, starts[has_any])
    return highest


def _sizes(arrays: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.array([len(each) for each in arrays], dtype=np.int64)
