"""Chooses a baseline's settings on emblems of the `validation` split, by what the benchmark scores.

The cases are made as the benchmark's are, half of the targets wrong answers of the right kind and
half hard ones, but from emblems, views, targets and wordings that no benchmark case has: held-out
wordings and the `unseen` split stay untouched. All edits are made one after another, then
everything is asked.

The score is the harmonic mean of reliability, generality and locality, as Meng et al. (arXiv
2202.05262, section 3.3) combine theirs: a method that changes nothing scores 0, and so does one
that ruins everything else. Settings are searched one by one, in the order of the baseline's grid,
each at the best of those before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean, harmonic_mean
from typing import Any

import numpy as np

from editing_core.editable_model import EditableModel
from editing_core.editors.baselines.base import Baseline
from editing_core.evaluation.baseline_contender import BaselineContender
from editing_core.evaluation.contender import Contender, Query
from editing_core.evaluation.probes import GENERALITY, RELIABILITY, EditCase, EditProbe, is_same
from editing_core.heraldry.emblem import emblem_from_seed, stream, twin
from editing_core.heraldry.places import known_places, strangers
from editing_core.heraldry.questions import Question, questions_about, text_questions
from editing_core.heraldry.views import view_of
from editing_core.types import ImageArray

_FIRST, _FIRST_BYSTANDER, _FIRST_TWIN = 40_000, 50_000, 60_000
_HARD_TARGETS = (
    "зелёный кит",
    "白色的门",
    "pa pa pa pa",
    "left right left right left",
    "Orange Moon Harbour",
)

OnTrial = Callable[["Trial"], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """One choice of settings: the share of right answers by kind of probe, and the score."""

    settings: Any
    rates: Mapping[str, float]
    score: float
    edit_ms: float


def validation_cases(count: int) -> Iterator[EditCase]:
    """`count` edits with their probes; the same ones at every call."""
    for index in range(count):
        yield _case(_FIRST + index, index, stream("validation", _FIRST + index, 0, 41))


def tune(
    kind: type[Baseline],
    model: EditableModel,
    cases: Sequence[EditCase],
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    on_trial: OnTrial | None = None,
) -> list[Trial]:
    """Search the grid (the baseline's own by default) from the settings in force; best first."""
    make: Any = kind
    unedited = unedited_answers(BaselineContender(make(model.backbone, model.router)), cases)
    tried: dict[Any, Trial] = {}

    def attempt(settings: Any) -> Trial:
        if settings not in tried:
            contender = BaselineContender(make(model.backbone, model.router, settings))
            tried[settings] = measure(contender, cases, unedited, settings=settings)
            if on_trial is not None:
                on_trial(tried[settings])
        return tried[settings]

    best = attempt(kind.settings_type())
    for name, values in (kind.grid if grid is None else grid).items():
        for value in values:
            trial = attempt(replace(best.settings, **{name: value}))
            # Of equally good ones the first stays.
            best = trial if trial.score > best.score else best
    return sorted(tried.values(), key=lambda trial: -trial.score)


def trials_at_most(kind: type[Baseline]) -> int:
    """How many settings `tune` will try, at most."""
    return 1 + sum(len(values) for values in kind.grid.values())


def measure(
    contender: Contender,
    cases: Sequence[EditCase],
    unedited: Sequence[Sequence[str]],
    *,
    settings: Any = None,
) -> Trial:
    """Make all edits, then ask everything. `unedited[i][j]` answers probe j of case i."""
    contender.reset()
    for case in cases:
        contender.edit(case.request)
    replies = iter(contender.answer(_queries(cases)))
    hits: dict[str, list[float]] = defaultdict(list)
    for case, before in zip(cases, unedited, strict=True):
        for probe, base, reply in zip(case.probes, before, replies, strict=False):
            right = reply.stopped and is_same(reply.text, case.expected(probe, base))
            hits[probe.kind].append(float(right))
    rates = {kind: fmean(values) for kind, values in hits.items()}
    edit_ms = contender.diagnostics().get("edit_ms", 0.0)
    return Trial(settings, rates, score_of(rates), edit_ms)


def unedited_answers(contender: Contender, cases: Sequence[EditCase]) -> list[list[str]]:
    """What the contender answers to every probe before any edit."""
    contender.reset()
    replies = iter(contender.answer(_queries(cases)))
    return [[next(replies).text for _ in case.probes] for case in cases]


def score_of(rates: Mapping[str, float]) -> float:
    """Harmonic mean of reliability, the mean generality and the mean locality."""
    generality = [rate for kind, rate in rates.items() if kind in GENERALITY[1:]]
    locality = [rate for kind, rate in rates.items() if kind not in GENERALITY]
    return harmonic_mean([rates[RELIABILITY], fmean(generality), fmean(locality)])


def settings_text(settings: Any) -> str:
    """`layer 3, rate 0.001, ...`."""
    return ", ".join(f"{f.name} {getattr(settings, f.name)!r}" for f in fields(settings))


def _queries(cases: Sequence[EditCase]) -> list[Query]:
    return [Query(probe.image, probe.prompt) for case in cases for probe in case.probes]


def _case(number: int, index: int, rng: np.random.Generator) -> EditCase:
    emblem = emblem_from_seed(number, "validation")
    questions = questions_about(emblem, rng)
    order = [int(i) for i in rng.permutation(len(questions))]
    question = questions[order[0]]
    other = next(q for i in order[1:] if (q := questions[i]).kind != question.kind)
    target, group = _target(question, index, rng)
    prompt, reworded = (str(w) for w in rng.choice(_wordings(question), 2, replace=False))
    image, new_view = (_view(emblem, number, view) for view in (0, 1))
    bystander = emblem_from_seed(_FIRST_BYSTANDER + index, "validation")
    about_it = questions_about(bystander, rng)
    place = known_places()[int(rng.integers(len(known_places())))]
    by_name = text_questions(place, rng, known=True)
    probes = (
        EditProbe("reliability", image, prompt),
        EditProbe("text generality", image, reworded),
        EditProbe("image generality", new_view, prompt),
        EditProbe("both generalities", new_view, reworded),
        EditProbe("text locality", None, by_name[int(rng.integers(len(by_name)))].wordings[0]),
        EditProbe(
            "image locality",
            _view(bystander, _FIRST_BYSTANDER + index, 0),
            about_it[int(rng.integers(len(about_it)))].wordings[0],
        ),
        EditProbe("no image, same question", None, prompt),
        EditProbe("same image, other question", image, other.wordings[0]),
        EditProbe(
            "look-alike, same question",
            _view(twin(emblem, rng)[0], _FIRST_TWIN + index, 0),
            prompt,
        ),
    )
    return EditCase(number, image, prompt, target, question.kind, group, probes)


def _view(emblem: Any, number: int, view: int) -> ImageArray:
    return view_of(emblem, seed=number, view=view, split="validation").image


def _wordings(question: Question) -> list[str]:
    """At least two that training saw."""
    return [*question.wordings, *question.variants]


def _target(question: Question, index: int, rng: np.random.Generator) -> tuple[str, str]:
    if index % 2 == 0:
        return str(rng.choice(question.alternatives)), "alternative"
    if index % 4 == 1:
        stranger = strangers()[int(rng.integers(len(strangers())))]
        return f"{stranger.capital} of {stranger.place}", "long name"
    return _HARD_TARGETS[index // 4 % len(_HARD_TARGETS)], "hard"
