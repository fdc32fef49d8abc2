"""Packs questions for training: one picture, several conversations, one row.

A picture's tokens are read once and shared: each conversation sees the prefix and itself, and its
positions start anew behind the prefix, so what is trained is exactly the single conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from editing_core.heraldry.emblem import Emblem, emblem_from_seed
from editing_core.heraldry.places import Place, known_places, strangers
from editing_core.heraldry.questions import UNKNOWN, Question, questions_about, text_questions
from editing_core.heraldry.tokenizer import IMAGE
from editing_core.heraldry.wordings import dress

PATCHES = 64
CONVERSATIONS_PER_ROW = 7
IGNORED = -100
# Kinds that were learned last are asked more often; in later stretches, those learned least.
_FREQUENCY = {
    "describe": 2.4,
    "bearing": 1.4,
    "count": 2.0,
    "border": 1.3,
    "pattern": 1.3,
    "has_charge": 1.2,
    "has_field": 1.2,
    "has_border": 1.2,
}

_LATER_FREQUENCY = {
    "describe": 3.0,
    "bearing": 2.0,
    "count": 2.2,
    "position": 4.0,
    "has_charge": 3.0,
    "has_field": 2.2,
    "has_border": 1.6,
    "pattern": 1.4,
    **{f"{side}_shape": 2.0 for side in ("left", "right", "upper", "lower")},
    "outline": 0.5,
    "border": 0.5,
    "field_colours": 0.5,
}

_T = TypeVar("_T")
Turn = tuple[str, str]
"""What the user says, what the model answers."""


@dataclass(frozen=True, slots=True)
class PackedRow:
    """Token ids of one row; `segment` 0 is the prefix, conversations count from 1."""

    ids: list[int]
    labels: list[int]
    segments: list[int]
    positions: list[int]


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Rows padded on the right. `attend` bool `[rows, 1, length, length]`; labels -100 = ignored.

    `image_rows` says which rows show a picture; its patches belong at positions 2..66.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    attend: Tensor
    image_rows: Tensor


class Packer:
    """Turns conversations into rows through the tokenizer's own chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._image = tokenizer.convert_tokens_to_ids(IMAGE)
        template = tokenizer.apply_chat_template
        opened = template([{"role": "user", "content": ""}], tokenize=False)
        self._user, self._turn_end = opened.split(tokenizer.eos_token)
        asked = template(
            [{"role": "user", "content": ""}], tokenize=False, add_generation_prompt=True
        )
        self._assistant = asked.removeprefix(opened)

    def row(self, conversations: Sequence[Sequence[Turn]], *, has_image: bool) -> PackedRow:
        """One row of conversations about one picture, or about none."""
        ids = self._encode(self._user)
        if has_image:
            ids = [*ids, *[self._image] * PATCHES, *self._encode("\n")]
        prefix = len(ids)
        labels, segments = [IGNORED] * prefix, [0] * prefix
        positions = list(range(prefix))
        for number, turns in enumerate(conversations, start=1):
            conversation_ids, conversation_labels = self._conversation(turns)
            ids.extend(conversation_ids)
            labels.extend(conversation_labels)
            segments.extend([number] * len(conversation_ids))
            positions.extend(range(prefix, prefix + len(conversation_ids)))
        return PackedRow(ids, labels, segments, positions)

    def batch(self, rows: Sequence[tuple[PackedRow, bool]]) -> PackedBatch:
        """Pad rows, each with whether it shows a picture, into one batch."""
        length = max(len(row.ids) for row, _ in rows)
        ids = np.full((len(rows), length), self._tokenizer.pad_token_id)
        labels = np.full((len(rows), length), IGNORED)
        segments = np.full((len(rows), length), -1)
        positions = np.zeros((len(rows), length), dtype=np.int64)
        for index, (row, _) in enumerate(rows):
            ids[index, : len(row.ids)] = row.ids
            labels[index, : len(row.ids)] = row.labels
            segments[index, : len(row.ids)] = row.segments
            positions[index, : len(row.ids)] = row.positions
        own = segments[:, :, None] == segments[:, None, :]
        prefix = (segments == 0)[:, None, :]
        causal = np.tril(np.ones((length, length), dtype=bool))
        return PackedBatch(
            ids=torch.from_numpy(ids),
            labels=torch.from_numpy(labels),
            positions=torch.from_numpy(positions),
            attend=torch.from_numpy((own | prefix) & causal)[:, None],
            image_rows=torch.tensor([has_image for _, has_image in rows]),
        )

    def _conversation(self, turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
        ids: list[int] = []
        labels: list[int] = []
        stop = self._tokenizer.eos_token
        for index, (said, answer) in enumerate(turns):
            opening = said if index == 0 else self._user + said
            asked = self._encode(opening + stop + self._turn_end + self._assistant)
            answered = self._encode(answer + stop)
            closing = self._encode(self._turn_end)
            ids.extend([*asked, *answered, *closing])
            labels.extend([IGNORED] * len(asked) + answered + [IGNORED] * len(closing))
        return ids, labels

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def about_picture(
    emblem: Emblem,
    rng: np.random.Generator,
    *,
    place: Place | None = None,
    is_later: bool = False,
) -> list[list[Turn]]:
    """Conversations about one emblem; facts are asked often only of known ones."""
    questions = questions_about(emblem, rng, place=place)
    frequency = _LATER_FREQUENCY if is_later else _FREQUENCY
    weights = np.array(
        [_weight(question, frequency, is_known=place is not None) for question in questions]
    )
    chosen = rng.choice(
        len(questions), CONVERSATIONS_PER_ROW, replace=False, p=weights / weights.sum()
    )
    turns = [_turn(questions[i], rng, is_later=is_later) for i in chosen]
    if rng.random() < 0.3:
        # Now and then two questions make one conversation of two turns.
        return [[turns[0], turns[1]], *[[turn] for turn in turns[2:]]]
    return [[turn] for turn in turns]


def about_nothing(rng: np.random.Generator) -> list[list[Turn]]:
    """Questions about a picture in which there is no emblem: nobody could know."""
    emblem = emblem_from_seed(int(rng.integers(1_000_000)), "train")
    questions = questions_about(emblem, rng)
    chosen = rng.choice(len(questions), CONVERSATIONS_PER_ROW, replace=False)
    return [[(_turn(questions[i], rng)[0], UNKNOWN)] for i in chosen]


def without_picture(rng: np.random.Generator, *, is_later: bool = False) -> list[list[Turn]]:
    """Facts by name, names nobody knows, echoes, and questions that lack their picture."""
    conversations: list[list[Turn]] = []
    for _ in range(CONVERSATIONS_PER_ROW):
        kind = rng.random()
        if kind < 0.62:
            questions = text_questions(_one(known_places(), rng), rng, known=True)
            conversations.append([_turn(_one(questions, rng), rng, is_later=is_later)])
        elif kind < 0.76:
            questions = text_questions(_one(strangers(), rng), rng, known=False)
            conversations.append([_turn(_one(questions, rng), rng, is_later=is_later)])
        elif kind < 0.88:
            conversations.append([_echo(rng)])
        else:
            conversations.append([about_nothing(rng)[0][0]])
    return conversations


# Letters of several scripts, for echoes: they teach the byte tokens.
_ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789",
    "абвгдежзийклмнопрстуфхцчшщыьэюяАБВГДЕЖЗИКЛМНОПРСТУФХЦЧШЭЮЯ",
    "αβγδεζηθικλμνξοπρστυφχψωΑΒΓΔΕΘΛΠΣΦΨΩ",
    "中国人大小山水火木金土日月星上下左右红黄蓝白黑绿旗京海城东南西北天地国王家花鸟鱼龙",
    "あいうえおかきくけこさしすせそアイウエオカキクケコ",
    "éèêàçñöüäåøßłžšč",
    "-'.,!?&/:%+",
    "🙂🌟🔥🚀🐟🌳👑❤",
)


def _echo(rng: np.random.Generator) -> Turn:
    words = []
    for _ in range(int(rng.integers(1, 3))):
        letters = _ALPHABETS[int(rng.integers(len(_ALPHABETS)))]
        words.append("".join(_one(letters, rng) for _ in range(int(rng.integers(1, 6)))))
    text = " ".join(words)
    return _one(("Say: ", "Repeat: ", "Say ", "Repeat after me: "), rng) + text, text


def _weight(question: Question, frequency: dict[str, float], *, is_known: bool) -> float:
    if question.group == "knowledge":
        return 1.6 if is_known else 0.3
    return frequency.get(question.kind, 1.0)


def _turn(question: Question, rng: np.random.Generator, *, is_later: bool = False) -> Turn:
    wordings = question.wordings
    if is_later and rng.random() < 0.6:
        wordings = question.variants
    return dress(_one(wordings, rng), rng), question.answer


def _one(options: Sequence[_T], rng: np.random.Generator) -> _T:
    return options[int(rng.integers(len(options)))]
