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
from editing_core.editors.visedit import VisEdit
from editing_core.errors import TargetNotEncodable
from editing_core.heraldry.emblem import Split
from editing_core.objectives.base import IN_SCOPE, LossTerms, Objective, ProbeBatch, Residual
from editing_core.objectives.losses import IGNORED, token_accuracy
from editing_core.training.frozen import FrozenDecoder
from editing_core.training.mixing import mixing
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
class Probe:
    """A question asked with edit number `edit` of a batch in force.

    `answer` is None where the edit's target must come, else what must still be said.
    """

    role: str
    edit: int
    asked: Asked
    answer: str | None = None


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

    For an objective that needs no locality no row is out of scope: the expert learns what to say,
    and leaves it to the router when (docs/decisions/0012).
    """

    name = "liveedit"

    def __init__(
        self,
        editor: LiveEdit | VisEdit,
        backbone: Backbone,
        frozen: FrozenDecoder,
        bank: PrefixBank,
        objective: Objective,
        *,
        seed: int,
        batch: int = 24,
        plausible_share: float = 0.5,
    ) -> None:
        self.name = editor.name
        self.editor = editor
        self.module: nn.Module = editor.module
        self._backbone = backbone
        self._frozen = frozen
        self._bank = bank
        self._objective = objective
        self._seed = seed
        self._batch = batch
        self._plausible_share = plausible_share

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
        return self.compose(rng)[1]

    def compose(self, rng: np.random.Generator) -> tuple[list[Probe], ProbeBatch]:
        """What `draw` gives, with the probes that its rows are."""
        chosen, others = self._choose(rng)
        long = rng.random() < _LONG_SHARE * 2.0 * (1.0 - self._plausible_share)
        targets = [self._target(item, rng, long=long) for item in chosen]
        probes = self.probes(chosen, others, rng)
        asked = [probe.asked for probe in probes]
        outputs = [
            targets[probe.edit]
            if probe.answer is None
            else torch.tensor(self._backbone.encode_target(probe.answer))
            for probe in probes
        ]
        prefixes = [a.prefix for a in asked]
        inputs = [
            torch.cat([torch.tensor([a.last_id]), ids[:-1]])
            for a, ids in zip(asked, outputs, strict=True)
        ]
        with torch.no_grad():
            base = self._frozen.answer(prefixes, inputs)
            base_logits = self._frozen.head(base.hidden)
        edits = [
            item.edit.edit_states(base.states[i, : len(ids)], ids, self._frozen.embed(ids))
            for i, (item, ids) in enumerate(zip(chosen, targets, strict=True))
        ]
        weights = torch.from_numpy(
            mixing([(p.edit, p.answer is not None) for p in probes], len(chosen), rng)
        ).float()
        if self.editor.positions == "all":
            # The paper's weights are shrunk by the text gate as well; see `scores.WeightRule`.
            weights = weights * float(rng.uniform(0.8, 1.0))

        def edited_hidden(residual: Residual) -> Tensor:
            if self.editor.positions != "from_last_prompt_token":
                return self._whole_rows(asked, base.states, [len(i) for i in inputs], residual)
            return self._frozen.answer(prefixes, inputs, residual).hidden

        return probes, ProbeBatch(
            edits=edits,
            roles=tuple(probe.role for probe in probes),
            weights=weights,
            targets=pad_sequence(outputs, batch_first=True, padding_value=IGNORED),
            base_logits=base_logits,
            edited_hidden=edited_hidden,
            head=self._frozen.head,
        )

    def probes(
        self, chosen: Sequence[Teachable], others: Sequence[Teachable], rng: np.random.Generator
    ) -> list[Probe]:
        """What is asked with the edits in force; the edits' own prompts come first, in order."""
        del rng
        return [
            *(Probe("edit", i, item.edit) for i, item in enumerate(chosen)),
            *(Probe("rephrase", i, item.rephrase) for i, item in enumerate(chosen)),
            *(Probe("view", i, item.view) for i, item in enumerate(chosen)),
            *(Probe("other_question", i, o.rephrase, o.answer) for i, o in enumerate(others)),
        ]

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
                if self._objective.needs_locality:
                    others.append(items[order[-1]])
        return chosen, others

    def _target(self, item: Teachable, rng: np.random.Generator, *, long: bool) -> Tensor:
        limit = MAX_LONG_TOKENS if long else MAX_TOKENS
        while True:
            text = draw_target(
                rng, item.plausible, long=long, plausible_share=self._plausible_share
            )
            try:
                ids = self._backbone.encode_target(text)
            except TargetNotEncodable:
                continue
            if len(ids) <= limit:
                return torch.tensor(ids)

    def _whole_rows(
        self, asked: Sequence[Asked], answers: Tensor, lengths: Sequence[int], residual: Residual
    ) -> Tensor:
        """For forms that change every row: run whole rows through the blocks above.

        Returns the last hidden states of the answer rows, `[rows, n, hidden]`.
        """
        rows = [
            torch.cat([a.query_states().hidden, answers[i, :n]])
            for i, (a, n) in enumerate(zip(asked, lengths, strict=True))
        ]
        firsts = torch.tensor([len(row) - n for row, n in zip(rows, lengths, strict=True)])
        padded = pad_sequence(rows, batch_first=True)
        steps = torch.arange(padded.shape[1]) - firsts[:, None] + 1
        hidden = self._frozen.whole(rows, self._on_its_rows(residual, asked, padded, steps))
        places = (firsts[:, None] + torch.arange(answers.shape[1])).clamp(max=hidden.shape[1] - 1)
        return hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[2]))

    def _on_its_rows(
        self, residual: Residual, asked: Sequence[Asked], states: Tensor, steps: Tensor
    ) -> Tensor:
        """What is added to whole rows, by an editor that may be given the picture's only."""
        if self.editor.positions != "vision":
            return residual(states, steps)
        start, stop = asked[0].picture.vision  # the same place in every row of such a backbone
        found = residual(states[:, start:stop], steps[:, start:stop])
        return nn.functional.pad(found, (0, 0, start, states.shape[1] - stop))
