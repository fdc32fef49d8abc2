"""Edits and queries to compare: states computed once, and every pair's scores and meaning.

Per subject the bank holds two views of an emblem and two of its one-attribute look-alike, and on
each the same questions, worded differently. One view of each emblem plays the edit, one the query.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from editing_core.heraldry.emblem import Split
from editing_core.routing.features import VisualExtractor
from editing_core.routing.router import Router
from editing_core.training.scenes import Stage
from editing_core.training.trainer import Notify
from editing_core.training.world import (
    Draw,
    Subject,
    draw_view,
    identity,
    odd_prompt,
    subject,
    word,
)

VIEWS = 4
# Own view for edits, own view for queries, the look-alike's view for edits and for queries.
_EDIT_VIEWS, _QUERY_VIEWS = (0, 2), (1, 3)


@dataclass(frozen=True)
class RoutingBank:
    """States of many subjects, in the storage type, side by side.

    `images` `[subjects, 4, patches, hidden]`, `keys` float32 `[subjects, 4, key]`; `words`
    `[subjects, 4, questions, longest, hidden]` with `lengths` int64 `[subjects, 4, questions]`;
    `same` int64 `[subjects, questions]` numbers the questions: equal numbers, same question;
    `kind` likewise for their kinds: same kind, other number is a near neighbour. `classes` int64
    `[subjects, 2, parts]`: what the picture and its look-alike show (`attributes`).
    """

    images: Tensor
    keys: Tensor
    words: Tensor
    lengths: Tensor
    same: Tensor
    kind: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @property
    def questions(self) -> int:
        """How many questions each subject is asked."""
        return self.same.shape[1]

    @classmethod
    def prepare(
        cls,
        stage: Stage,
        numbers: range,
        *,
        split: Split,
        questions: int = 9,
        everyday_share: float = 0.0,
        draw: Draw = draw_view,
        folder: Path | None = None,
        notify: Notify | None = None,
        chunk: int = 50,
    ) -> RoutingBank:
        """Draw, show and ask, chunk by chunk; chunks already in `folder` are read again."""
        shards: list[dict[str, Tensor]] = []
        for start in range(numbers.start, numbers.stop, chunk):
            group = range(start, min(start + chunk, numbers.stop))
            name = f"{split}-{group.start}-{group.stop}-{questions}-{everyday_share}.bank"
            path = None if folder is None else folder / name
            if path is not None and path.exists():
                shards.append(load_file(path))
            else:
                shards.append(_prepare(stage, group, split, questions, everyday_share, draw))
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    save_file(shards[-1], path.with_suffix(".part"))
                    path.with_suffix(".part").rename(path)
            if notify is not None:
                notify("states", group.stop - numbers.start, len(numbers))
        longest = max(shard["words"].shape[3] for shard in shards)
        for shard in shards:
            room = longest - shard["words"].shape[3]
            shard["words"] = nn.functional.pad(shard["words"], (0, 0, 0, room))
        return cls(**{name: torch.cat([s[name] for s in shards]) for name in shards[0]})


def _prepare(
    stage: Stage, numbers: range, split: Split, count: int, everyday_share: float, draw: Draw
) -> dict[str, Tensor]:
    subjects = [subject(number, split, everyday_share=everyday_share) for number in numbers]
    images = []
    for item in subjects:
        own, other = item.pictures(2, draw)
        images.extend([own[0], own[1], other[0], other[1]])
    pictures = stage.show(images)
    prompts: list[str] = []
    same: list[str] = []
    kinds: list[str] = []
    for item in subjects:
        columns = _word_questions(item, count)
        same.extend(name for name, _, _ in columns)
        kinds.extend(kind for _, kind, _ in columns)
        for view in range(VIEWS):
            prompts.extend(worded[view] for _, _, worded in columns)
    read = stage.read(prompts)
    shape = (len(subjects), VIEWS, count)
    words = pad_sequence(read, batch_first=True)
    states = torch.stack([p.image_states for p in pictures])
    keys = torch.from_numpy(np.stack([p.key for p in pictures]))
    return {
        "images": states.view(-1, VIEWS, *states.shape[1:]),
        "keys": keys.view(-1, VIEWS, keys.shape[1]),
        "words": words.view(*shape, *words.shape[1:]),
        "lengths": torch.tensor([len(states) for states in read]).view(shape),
        "same": _numbers(same).view(len(subjects), count),
        "kind": _numbers(kinds).view(len(subjects), count),
        "classes": torch.tensor([item.classes for item in subjects]),
    }


def _word_questions(item: Subject, count: int) -> list[tuple[str, str, list[str]]]:
    """`(identity, kind, one prompt a view)` of `count` questions, the last an odd one.

    The look-alike is queried with the edit's very words; the own query is worded otherwise in
    seven cases of ten.
    """
    rng = np.random.default_rng([31, item.number])
    columns = []
    for question in item.questions[: count - 1]:
        edit, plain = word(question, rng)
        query, _ = word(question, rng, avoid=plain)
        other, _ = word(question, rng)
        prompts = [edit, edit if rng.random() < 0.3 else query, other, edit]
        columns.append((identity(question), question.kind, prompts))
    while len(columns) < count:
        odd = odd_prompt(rng)
        columns.append((odd, odd, [odd, odd.rstrip("?"), odd.capitalize(), odd]))
    return columns


def _numbers(names: Sequence[str]) -> Tensor:
    """A number for each name, the same in every shard."""
    digests = [hashlib.sha256(name.encode()).digest()[:7] for name in names]
    return torch.tensor([int.from_bytes(digest, "big") for digest in digests])


@dataclass(frozen=True)
class Side:
    """Keys of the edits or of the queries of some subjects, `n * 2 * questions` rows: `text
    [rows, key]`, `visual [rows, slots, width]`; `sentinel [rows, slots]`, the cosines of the
    visual keys with the sentinel's, is 0 for edits. `questions` int64 `[rows]` numbers what they
    ask, `classes` int64 `[rows, parts]` says what their pictures show."""

    text: Tensor
    visual: Tensor
    sentinel: Tensor
    questions: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Comparison:
    """Scores of every query of a batch against every edit of it, and what each pair is.

    All `[queries, edits]`. `text`, `visual` are scores before their sigmoid and threshold, `image`
    the cosine of the image keys. `own` marks an edit's own question on another view of its emblem;
    `same_text` pairs that ask the same; `same_picture` pairs about one emblem, `same_subject`
    also those with its look-alike; `look_alike` pairs that ask the same about the two;
    `near_text` pairs of one kind that name different things. `edits` and `queries` are the keys.
    """

    text: Tensor
    visual: Tensor
    image: Tensor
    own: Tensor
    same_text: Tensor
    same_picture: Tensor
    same_subject: Tensor
    look_alike: Tensor
    near_text: Tensor
    edits: Side
    queries: Side


def compare(router: Router, bank: RoutingBank, subjects: Tensor) -> Comparison:
    """Compare all queries with all edits of some subjects, int64 `[n]` indices into the bank."""
    edits = _keys(router, bank, subjects, query=False)
    queries = _keys(router, bank, subjects, query=True)
    questions = bank.questions

    def flat(per_view: Tensor) -> Tensor:  # [n, 2, questions] -> [n * 2 * questions]
        return per_view.expand(len(subjects), 2, questions).reshape(-1)

    number = flat(torch.arange(len(subjects))[:, None, None])
    side = flat(torch.arange(2)[None, :, None])
    column = flat(torch.arange(questions)[None, None, :])
    kind = flat(bank.kind[subjects][:, None, :])
    same_subject = number[:, None] == number[None]
    same_side = side[:, None] == side[None]
    same_text = queries.questions[:, None] == edits.questions[None]
    asks_same = same_subject & (column[:, None] == column[None])
    keys = bank.keys[subjects]
    image = keys[:, _QUERY_VIEWS].flatten(0, 1) @ keys[:, _EDIT_VIEWS].flatten(0, 1).T
    image = image.repeat_interleave(questions, 0).repeat_interleave(questions, 1)
    return Comparison(
        text=router.scales.text(queries.text @ edits.text.T),
        visual=router.scales.visual(
            torch.einsum("qsw,esw->qes", queries.visual, edits.visual),
            queries.sentinel[:, None],
            image,
        ),
        image=image,
        own=asks_same & same_side,
        same_text=same_text,
        same_picture=same_subject & same_side,
        same_subject=same_subject,
        look_alike=asks_same & ~same_side,
        near_text=(kind[:, None] == kind[None]) & ~same_text,
        edits=edits,
        queries=queries,
    )


def _keys(router: Router, bank: RoutingBank, subjects: Tensor, *, query: bool) -> Side:
    side = router.query_side if query else router.edit_side
    views = _QUERY_VIEWS if query else _EDIT_VIEWS
    lengths = bank.lengths[subjects][:, views].flatten()
    longest = int(lengths.max())
    words = bank.words[subjects][:, views, :, :longest].flatten(0, 2).float()
    mask = torch.arange(longest) < lengths[:, None]
    images = bank.images[subjects][:, views].flatten(0, 1).float()
    text = side.text(words, mask).flatten(1)
    guided = side.visual.guided(words, mask)
    visual = _look_many(side.visual, guided, side.visual.read_patches(images))
    sentinel = torch.zeros(visual.shape[:2])
    if query:
        fake = side.visual.read_patches(router.sentinel.states[None])
        sentinel = (visual * _look_many(side.visual, guided, fake)).sum(-1)
    shape = (len(subjects), 2, bank.questions)
    return Side(
        text=text,
        visual=visual,
        sentinel=sentinel,
        questions=bank.same[subjects][:, None].expand(shape).flatten(),
        classes=bank.classes[subjects][:, :, None].expand(*shape, -1).flatten(0, 2),
    )


def _look_many(extractor: VisualExtractor, guided: Tensor, patches: Tensor) -> Tensor:
    """`look_at` where consecutive prompts share a picture.

    All slots of a picture's prompts look at it side by side, so that no picture is repeated.
    """
    slots = guided.shape[1]
    together = guided.reshape(len(patches), -1, guided.shape[2])
    mixed = extractor.look(together, patches).reshape(len(guided), slots, -1)
    return extractor.finish(mixed)
