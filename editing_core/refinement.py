"""Refining one expert: a bounded number of gradient steps on its own tensors, nothing else moves.

For an edit that does not take, or that disturbs what it should leave alone; and for editors whose
experts are made so in the first place (`Editor.fit`). The weights of the
base model are frozen, the routing is decided once and kept (keys are no part of an expert), and
what each step is judged by is the expert as it would be stored, rounded. It stops when
every wanted answer is what greedy decoding would say: a loss would stop too early or too late.

What the steps minimise is the cross entropy of the answers, each row counted alike; or a training
objective (`Aim`), to which the edit's own prompt, its rephrases and the answers that it must leave
alone are the roles `edit`, `rephrase` and `kept`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import LinearLR

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PreparedBatch
from editing_core.backbones.passes import Tap
from editing_core.editors.base import Editor, Optimise
from editing_core.errors import ArtifactCorrupt, NotFinite
from editing_core.experts.rounding import rounded, rounded_payload
from editing_core.generation import GenerationRow, IsCancelled, raise_if
from editing_core.intervention import Fused, apply, fuse
from editing_core.objectives.base import Objective, ProbeBatch
from editing_core.objectives.losses import IGNORED
from editing_core.types import EditArtifact, OnProgress

MAX_STEPS = 24
"""Steps an expert may take unless the caller says otherwise."""

_RATE = 0.2
_LEAST_SCALE = 1e-2
_ROUNDING = 1e-4
"""States that differ by no more of their size are the same ones, computed in another order."""

ANSWERS = "answers"
"""Names the loss of a refinement without an objective."""

Head = Callable[[Tensor], Tensor]
"""Last hidden states `[..., hidden]` to logits `[..., vocab]`."""

Selected = Sequence[tuple[str, EditArtifact, float]]
"""Who acts on one row, and how strongly."""


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """What `row` must answer; its snapshot holds the edit that is refined.

    `answer` is text, which ends with the stop token as targets do, or the tokens of an answer that
    was once given. `is_kept` marks one that the edit must leave alone, as against give.
    """

    row: GenerationRow
    answer: str | tuple[int, ...]
    is_kept: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Refinement:
    """The expert after `steps` steps. `is_right`: each wanted token is chosen after the others."""

    artifact: EditArtifact
    steps: int
    is_right: bool


@dataclass(frozen=True, slots=True, eq=False)
class Aim:
    """An objective and, for each row, what it knows beside the wanted answer.

    `base_logits` float32 `[answer tokens, vocab]` are the row's without the edit.
    """

    objective: Objective
    roles: tuple[str, ...]
    base_logits: Sequence[Tensor]

    def loss(self, answers: Sequence[Tensor], states: Sequence[Tensor], head: Head) -> Tensor:
        """Of last hidden states `[answer tokens, hidden]` a row; `answers` int64, as many."""
        padded = pad_sequence(list(states), batch_first=True)
        batch = ProbeBatch(
            edits=None,
            roles=self.roles,
            weights=padded.new_ones((len(states), 1)),
            targets=pad_sequence(list(answers), batch_first=True, padding_value=IGNORED),
            base_logits=pad_sequence(list(self.base_logits), batch_first=True),
            edited_hidden=lambda residual: padded,
            head=head,
        )
        return self.objective.loss(batch, _already_applied).total


def roles_of(wanted: Sequence[Wanted]) -> tuple[str, ...]:
    """`edit` for the first that is to be given, `rephrase` for further ones, `kept` for others."""
    given = [w for w in wanted if not w.is_kept]
    return tuple("kept" if w.is_kept else "edit" if w is given[0] else "rephrase" for w in wanted)


def _already_applied(states: Tensor, steps: Tensor) -> Tensor:
    """The residual of a pass in which the expert has acted."""
    del steps
    return torch.zeros_like(states)


class RefinedPass:
    """Teacher-forced rows whose routing is decided, run again and again with another expert.

    `selected[b]` acts on row b of `batch`. Where all experts share one edit layer, as they do for
    one backbone, the blocks below it run once, or not at all where `below` is what they gave.
    """

    def __init__(
        self,
        batch: PreparedBatch,
        selected: Sequence[Selected],
        *,
        backbone: Backbone,
        editors: Mapping[str, Editor],
        below: Tensor | None = None,
    ) -> None:
        self._batch = batch
        self._selected = {b: experts for b, experts in enumerate(selected) if experts}
        self._backbone = backbone
        self._editors = editors
        self._first_steps = {
            b: 1 - batch.padding[b] - batch.rows[b].spans.last_prompt for b in self._selected
        }
        layers = {a.edit_layer for experts in self._selected.values() for _, a, _ in experts}
        self._layers = sorted(layers)
        self._below = below
        if below is None and len(layers) == 1:
            with torch.no_grad():
                self._below = backbone.lower(batch, self._layers[0])

    @property
    def num_rows(self) -> int:
        return len(self._batch.rows)

    @property
    def nbytes(self) -> int:
        """Of the states that are kept."""
        return 0 if self._below is None else self._below.nbytes

    def last_states(self, edit_id: str, artifact: EditArtifact) -> Tensor:
        """With `artifact` in place of that edit's own: what the output head reads.

        `[batch, T, hidden]`. Gradients flow to the tensors of its payload.
        """
        fused = {
            b: fuse([(artifact if i == edit_id else a, w) for i, a, w in experts], self._editors)
            for b, experts in self._selected.items()
        }
        if self._below is not None:
            (layer,) = self._layers
            changed = self._tap(layer, fused)(self._below)
            assert changed is not None
            beginning = self._shared_beginning(changed)
            if beginning is not None:
                return self._backbone.upper_states_after(beginning, changed, self._batch, layer)
            return self._backbone.upper_states(changed, self._batch, layer)
        taps = {layer: self._tap(layer, fused) for layer in self._layers}
        return self._backbone.last_states(self._batch, taps=taps)

    def head(self, last_states: Tensor) -> Tensor:
        """Float32 logits of last hidden states."""
        return self._backbone.logits(last_states)

    def answers(self, columns: Tensor) -> list[Tensor]:
        """Of `[batch, T, ...]` what belongs to each row's answer, `[answer tokens, ...]`."""
        return [self._answer(columns[b], b) for b in range(len(self._batch.rows))]

    def _shared_beginning(self, changed: Tensor) -> Tensor | None:
        """The states up to the picture's end where all rows have the same ones, else None.

        That is so where an expert shows every row the same picture.
        """
        batch, spans = self._batch, self._batch.rows[0].spans
        if not self._backbone.has_plain_prefix or len(batch.rows) < 2 or spans.vision is None:
            return None
        end = spans.vision[1]
        begins = batch.rows[0].ids[:end]
        if any(row.ids[:end] != begins for row in batch.rows):
            return None
        found = [changed[b, pad : pad + end] for b, pad in enumerate(batch.padding)]
        with torch.no_grad():
            near = max(_ROUNDING, 4 * torch.finfo(changed.dtype).eps)
            size = float(found[0].float().square().mean().sqrt())
            for other in found[1:]:
                if not torch.allclose(other, found[0], rtol=near, atol=near * size):
                    return None
        return found[0]

    def _tap(self, layer: int, fused: Mapping[int, Fused]) -> Tap:
        rows = {b: by_layer[layer] for b, by_layer in fused.items() if layer in by_layer}

        def tap(hidden: Tensor) -> Tensor:
            return apply(
                hidden,
                rows,
                first_steps=self._first_steps,
                padding=self._batch.padding,
                pictures=self._batch.pictures,
            )

        return tap

    def _answer(self, row: Tensor, b: int) -> Tensor:
        spans = self._batch.rows[b].spans
        first = self._batch.padding[b] + spans.last_prompt
        return row[first : first + spans.target[1] - spans.target[0]]


Turn = tuple[RefinedPass, Sequence[Sequence[int]]]
"""Rows that are run together, and the tokens that each of them must answer."""


def adam(tensors: list[Tensor]) -> torch.optim.Optimizer:
    """What a refinement steps with: expert tensors of any form, near where they should be."""
    return torch.optim.Adam(tensors, lr=_RATE)


def refine(
    edit_id: str,
    artifact: EditArtifact,
    turns: Sequence[Turn],
    *,
    movable: Sequence[str],
    max_steps: int,
    units: Mapping[str, float] | None = None,
    optimise: Optimise = adam,
    margin: float = 0.0,
    reach: float = 0.0,
    is_slowed: bool = False,
    settled: int | None = None,
    aim: Aim | None = None,
    is_cancelled: IsCancelled | None = None,
    on_progress: OnProgress | None = None,
) -> Refinement:
    """Move the `movable` tensors of `artifact` until every row gives the wanted answer.

    At most `max_steps` steps, counted in `units` for each tensor: its own size by default; with
    `is_slowed` they shorten to nothing by then. The loss is that of `aim`; without one, how far
    wanted tokens fall short of a lead of `reach`, or with no reach the cross entropy of the
    answers, each row counted alike. Several `turns` have one step each, round and round, but for
    those that need none. It ends when in `settled` turns in succession, by default all of them,
    each wanted token's logit leads all others by `margin`; where that is out of reach, the last
    expert under which as many turns were seen to lead at all is the result.
    Raises `GenerationCancelled`, `ArtifactCorrupt` when a tensor outgrows float32, and `NotFinite`
    where no step was to blame.
    """
    start = {name: artifact.payload[name].float() for name in movable}
    # In units of each tensor's own size, so that one rate suits all of them.
    scales = {n: max(float(t.square().mean().sqrt()), _LEAST_SCALE) for n, t in start.items()}
    scales |= units or {}
    moves = {name: torch.zeros_like(t).requires_grad_() for name, t in start.items()}
    optimiser = optimise(list(moves.values()))
    pace = LinearLR(optimiser, 1.0, 0.0, total_iters=max_steps) if is_slowed and max_steps else None
    if aim is not None:
        aim.objective.attach(list(moves.values()))
    right: dict[str, Tensor] | None = None
    enough = len(turns) if settled is None else min(settled, len(turns))
    step = leading = certain = 0
    for index in cycle(range(len(turns))):
        raise_if(is_cancelled)
        run, answers = turns[index]
        with torch.enable_grad():
            tensors = {n: _as_stored(start[n] + scales[n] * moves[n]) for n in start}
            candidate = replace(artifact, payload={**artifact.payload, **tensors})
            states = run.last_states(edit_id, candidate)
            found = run.answers(states)
            # The head reads answers only: on a small model it is half of a step.
            logits = torch.split(run.head(torch.cat(found)), [len(answer) for answer in found])
        if step == 0 and not all(bool(line.isfinite().all()) for line in logits):
            raise NotFinite(
                "the model gave no numbers for this edit's questions (NaN or infinity)",
                edits=(edit_id,),
            )
        lead = min(_lead(line, ids) for line, ids in zip(logits, answers, strict=True))
        # Turns in succession, with no step between them.
        leading = leading + 1 if lead >= 0 else 0
        certain = certain + 1 if lead >= margin else 0
        if leading >= enough:
            right = {name: tensor.detach() for name, tensor in tensors.items()}
        if certain == enough:
            break
        if lead >= margin:
            continue
        if step == max_steps:
            break
        with torch.enable_grad():
            wanted = [torch.tensor(ids, device=logits[0].device) for ids in answers]
            optimiser.zero_grad()
            if aim is None:
                pairs = list(zip(logits, wanted, strict=True))
                losses = [_shortfall(*p, reach) if reach else cross_entropy(*p) for p in pairs]
                loss = torch.stack(losses).mean()
            else:
                loss = aim.loss(wanted, found, run.head)
            loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if aim is not None:
            aim.objective.after_step()
        if pace is not None:
            pace.step()
        step, leading, certain = step + 1, 0, 0
        if on_progress is not None:
            on_progress(step, max_steps, float(loss.detach()))
    kept = tensors if right is None else right
    stored = rounded_payload(kept)
    for name, tensor in stored.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ArtifactCorrupt(f"the refined expert's {name} cannot be stored", field=name)
    refined = replace(artifact, payload={**artifact.payload, **stored})
    return Refinement(refined, step, right is not None)


def _lead(logits: Tensor, ids: Sequence[int]) -> float:
    """By how much the least certain token of `[tokens, vocab]` leads; -1 where greedy errs."""
    if logits.argmax(-1).tolist() != list(ids):
        return -1.0
    best = logits.detach().topk(2, dim=-1).values
    return float((best[:, 0] - best[:, 1]).min())


def _shortfall(logits: Tensor, wanted: Tensor, reach: float) -> Tensor:
    """By how much the leads of `wanted` `[tokens]` fall short of `reach`, their mean."""
    own = logits.gather(-1, wanted[:, None])
    others = logits.scatter(-1, wanted[:, None], -torch.inf).amax(-1, keepdim=True)
    return torch.relu(reach - (own - others)).mean()


def _as_stored(tensor: Tensor) -> Tensor:
    """Rounded as it is stored on the way forward, the identity on the way back."""
    return tensor + (rounded(tensor).float() - tensor).detach()
