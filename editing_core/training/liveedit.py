"""Trains LiveEdit's expert generator, in either form, on a frozen backbone.

A bank of prefixes is computed once: per subject two views and a few questions, each worded three
ways. Every step draws edits from it with fresh targets, generates their experts, mixes experts of
other edits into every row with router-like weights (the softmax over all slots must be trained
with rivals), and minimises the objective. Locality probes are other questions on the same picture,
with the edit's expert switched on: a second line of defence behind the router.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from editing_core.backbones.base import Backbone
from editing_core.editors.liveedit import LiveEdit
from editing_core.errors import TargetNotEncodable
from editing_core.heraldry.emblem import Split
from editing_core.objectives.base import IN_SCOPE, LossTerms, Objective, ProbeBatch, Residual
from editing_core.objectives.losses import IGNORED, token_accuracy
from editing_core.training.frozen import FrozenDecoder
from editing_core.training.scenes import Asked, Picture, Stage
from editing_core.training.targets import draw_target
from editing_core.training.trainer import Notify
from editing_core.training.world import Draw, draw_view, odd_prompt, subject, word

MAX_TOKENS = 24
MAX_LONG_TOKENS = 48
_ODD_SHARE = 0.15
_LONG_SHARE = 0.06


@dataclass(frozen=True)
class Teachable:
    """One question that may be edited: asked as the edit, reworded, and on another view."""

    edit: Asked
    rephrase: Asked
    view: Asked
    answer: str
    plausible: tuple[str, ...]


@dataclass(frozen=True)
class PrefixBank:
    """The questions of every subject: `subjects[i]` all lie on the same two pictures."""

    subjects: tuple[tuple[Teachable, ...], ...]

    @classmethod
    def prepare(
        cls,
        stage: Stage,
        numbers: range,
        *,
        split: Split,
        questions: int = 3,
        everyday_share: float = 0.0,
        draw: Draw = draw_view,
        notify: Notify | None = None,
        chunk: int = 16,
    ) -> PrefixBank:
        """Draw, show and ask; the same arguments give the same bank."""
        prepared: list[tuple[Teachable, ...]] = []
        for start in range(numbers.start, numbers.stop, chunk):
            group = range(start, min(start + chunk, numbers.stop))
            prepared.extend(_prepare(stage, group, split, questions, everyday_share, draw))
            if notify is not None:
                notify("prefixes", len(prepared), len(numbers))
        return cls(tuple(prepared))


def _prepare(
    stage: Stage, numbers: range, split: Split, count: int, everyday_share: float, draw: Draw
) -> list[tuple[Teachable, ...]]:
    subjects = [subject(number, split, everyday_share=everyday_share) for number in numbers]
    pictures = stage.show([image for s in subjects for image in s.pictures(2, draw)[0]])
    to_ask: list[tuple[Picture, str]] = []
    for i, item in enumerate(subjects):
        rng = np.random.default_rng([29, item.number])
        first, second = pictures[2 * i : 2 * i + 2]
        for question in item.questions[:count]:
            if rng.random() < _ODD_SHARE:
                odd = odd_prompt(rng)
                prompts = [odd, odd.rstrip("?"), odd]
            else:
                edit, plain = word(question, rng)
                rephrase, _ = word(question, rng, avoid=plain)
                view = edit if rng.random() < 0.5 else word(question, rng, avoid=plain)[0]
                prompts = [edit, rephrase, view]
            to_ask.extend(zip((first, first, second), prompts, strict=True))
    asked = iter(stage.ask(to_ask))
    return [
        tuple(
            Teachable(next(asked), next(asked), next(asked), question.answer, question.alternatives)
            for question in item.questions[:count]
        )
        for item in subjects
    ]


class LiveEditTask:
    """Draws a step's edits from the bank and asks the objective for their loss.

    Without locality no row is out of scope: the expert learns what to say, and leaves it to the
    router when (docs/decisions/0012).
    """

    name = "liveedit"

    def __init__(
        self,
        editor: LiveEdit,
        backbone: Backbone,
        frozen: FrozenDecoder,
        bank: PrefixBank,
        objective: Objective,
        *,
        seed: int,
        batch: int = 24,
        with_locality: bool = True,
    ) -> None:
        self.name = f"liveedit-{editor.config.form}"
        self.editor = editor
        self.module: nn.Module = editor.module
        self._backbone = backbone
        self._frozen = frozen
        self._bank = bank
        self._objective = objective
        self._seed = seed
        self._batch = batch
        self._with_locality = with_locality

    def loss(self, step: int) -> LossTerms:
        """The loss of a step; its batch depends on the seed and the step only."""
        batch = self.draw(np.random.default_rng([self._seed, step]))
        return self._objective.loss(batch, self.editor.batch_residual(batch.edits, batch.weights))

    @torch.no_grad()
    def evaluate(self, batches: int, *, seed: int) -> dict[str, float]:
        """Exact match of every role. Teacher-forced and exact at every token, it is greedy's."""
        sums: dict[str, list[float]] = {}
        for number in range(batches):
            batch = self.draw(np.random.default_rng([seed, number, 1]))
            logits = batch.edited_logits(self.editor.batch_residual(batch.edits, batch.weights))
            kept = batch.base_logits.argmax(-1).where(batch.targets != IGNORED, IGNORED)
            for i, role in enumerate(batch.roles):
                wanted = batch.targets if role in IN_SCOPE else kept
                exact = token_accuracy(logits[i : i + 1], wanted[i : i + 1])[1]
                sums.setdefault(role, []).append(exact)
        return {role: float(np.mean(values)) for role, values in sums.items()}

    def draw(self, rng: np.random.Generator) -> ProbeBatch:
        """Edits with fresh targets, their probes, and the weights each probe mixes experts with."""
        chosen, others = self._choose(rng)
        long = rng.random() < _LONG_SHARE
        targets = [self._target(item, rng, long=long) for item in chosen]
        answers = [torch.tensor(self._backbone.encode_target(other.answer)) for other in others]
        asked = (
            [item.edit for item in chosen]
            + [item.rephrase for item in chosen]
            + [item.view for item in chosen]
            + [other.rephrase for other in others]
        )
        outputs = [*targets, *targets, *targets, *answers]
        count = len(chosen)
        roles = ("edit",) * count + ("rephrase",) * count + ("view",) * count
        roles += ("other_question",) * len(others)
        prefixes = [a.prefix for a in asked]
        inputs = [
            torch.cat([torch.tensor([a.last_id]), ids[:-1]])
            for a, ids in zip(asked, outputs, strict=True)
        ]
        with torch.no_grad():
            base = self._frozen.answer(prefixes, inputs)
        edits = [
            item.edit.edit_states(base.states[i, : len(ids)], ids, self._frozen.embed(ids))
            for i, (item, ids) in enumerate(zip(chosen, targets, strict=True))
        ]
        weights = torch.from_numpy(_mixing(count, len(others), rng)).float()
        if self.editor.positions == "all":
            # The paper's weights are shrunk by the text gate as well; see `scores.WeightRule`.
            weights = weights * float(rng.uniform(0.8, 1.0))

        def edited_logits(residual: Residual) -> Tensor:
            if self.editor.positions == "all":
                return self._whole_rows(asked, base.states, [len(i) for i in inputs], residual)
            return self._frozen.answer(prefixes, inputs, residual).logits

        return ProbeBatch(
            edits=edits,
            roles=roles,
            weights=weights,
            targets=pad_sequence(outputs, batch_first=True, padding_value=IGNORED),
            base_logits=base.logits,
            edited_logits=edited_logits,
        )

    def _choose(self, rng: np.random.Generator) -> tuple[list[Teachable], list[Teachable]]:
        """Edits, two on every other subject, and for each a question on its picture left alone,
        or none."""
        chosen: list[Teachable] = []
        others: list[Teachable] = []
        subjects = self._bank.subjects
        picks = iter(rng.permutation(len(subjects)))
        while len(chosen) < self._batch:
            items = subjects[int(next(picks))]
            order = rng.permutation(len(items))
            edited = order[: 2 if rng.random() < 0.4 and len(items) > 2 else 1]
            for index in edited:
                chosen.append(items[index])
                if self._with_locality:
                    others.append(items[order[-1]])
        return chosen, others

    def _target(self, item: Teachable, rng: np.random.Generator, *, long: bool) -> Tensor:
        limit = MAX_LONG_TOKENS if long else MAX_TOKENS
        while True:
            text = draw_target(rng, item.plausible, long=long)
            try:
                ids = self._backbone.encode_target(text)
            except TargetNotEncodable:
                continue
            if len(ids) <= limit:
                return torch.tensor(ids)

    def _whole_rows(
        self, asked: Sequence[Asked], answers: Tensor, lengths: Sequence[int], residual: Residual
    ) -> Tensor:
        """For forms that change every row: run whole rows through the blocks above."""
        rows = [
            torch.cat([a.query_states().hidden, answers[i, :n]])
            for i, (a, n) in enumerate(zip(asked, lengths, strict=True))
        ]
        firsts = torch.tensor([len(row) - n for row, n in zip(rows, lengths, strict=True)])
        padded = pad_sequence(rows, batch_first=True)
        steps = torch.arange(padded.shape[1]) - firsts[:, None] + 1
        logits = self._frozen.whole(rows, residual(padded, steps))
        places = (firsts[:, None] + torch.arange(answers.shape[1])).clamp(max=logits.shape[1] - 1)
        return logits.gather(1, places[..., None].expand(-1, -1, logits.shape[2]))


def _mixing(edits: int, others: int, rng: np.random.Generator) -> np.ndarray:
    """Weights like a router's, `[3 * edits + others, edits]`, each row summing to 1.

    Rows in scope carry their own expert, alone in two rows of five, else ahead of up to four
    rivals by a random margin that may be none. Rows out of scope carry the expert of the edit on
    their picture, or only strangers.
    """
    rows = 3 * edits + others
    weights = np.zeros((rows, edits))
    for row in range(rows):
        own = row % edits
        rivals = rng.permutation(np.delete(np.arange(edits), own))[: int(rng.integers(1, 5))]
        kind = rng.random()
        if row >= 3 * edits and kind < 0.2:
            members = rivals
        else:
            members = np.array([own]) if kind < 0.5 else np.array([own, *rivals])
        scores = np.zeros(len(members))
        scores[0] = max(0.0, rng.uniform(-1.0, 5.0))
        exponentials = np.exp(scores)
        weights[row, members] = exponentials / exponentials.sum()
    return weights
