"""Edits all flags, or half of them, and asks; every probe with its verdict and a miss's cause."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from benchmarks.answering import Advance, Answer, Answerer, Made
from benchmarks.flags import NEAR_IDENTICAL, FlagData, FlagEdit, Question
from editing_core.evaluation.probes import is_same

RELIABILITY = "reliability"
REDRAWN = "image generality, redrawn flags"
IMAGE_LOCALITY, TEXT_LOCALITY = "image locality", "text locality"
OTHER_FLAGS, NEAR_DESIGNS = "other flags unchanged", "near-identical flags unchanged"
_MUST_STAY = (IMAGE_LOCALITY, TEXT_LOCALITY, OTHER_FLAGS, NEAR_DESIGNS)


Watch = Callable[[str, int], AbstractContextManager[Advance]]
"""`(stage, total)` -> a context that shows progress and gives the function to advance it."""


@dataclass(frozen=True, slots=True)
class Probed:
    """One asked probe: `hit` with the edits in force, `off` with editing off."""

    kind: str
    edit: FlagEdit
    question: Question
    expected: str
    answer: str
    hit: bool
    off: bool
    cause: str | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what was edited, what became of it, what was asked."""

    edits: tuple[FlagEdit, ...]
    made: tuple[Made, ...]
    probed: tuple[Probed, ...]


@dataclass(frozen=True, slots=True)
class _Planned:
    kind: str
    edit: FlagEdit
    question: Question
    note: str = ""


def run_together(data: FlagData, answerer: Answerer, watch: Watch) -> Run:
    """All edits in force together; then every record's own probes."""
    return _run(data.edits, _own_probes(data.edits), answerer, watch)


def run_half_split(data: FlagData, answerer: Answerer, watch: Watch, *, seed: int = 0) -> Run:
    """Half the countries edited; the other half's flags asked the same questions.

    Those flags were edited by nobody, so every answer must stay; flags whose design is all but that
    of an edited one are a kind apart (`NEAR_IDENTICAL`), each noting the flag it resembles.
    """
    edited, others = data.halves(seed)
    flags = sorted({edit.record.image for edit in edited})
    plans = [_Planned(RELIABILITY, edit, edit.question) for edit in edited]
    for edit in others:
        distance, flag = data.nearest(edit.record.image, flags)
        kind = NEAR_DESIGNS if distance < NEAR_IDENTICAL else OTHER_FLAGS
        plans.append(_Planned(kind, edit, edit.question, f"{distance:.1f} from {flag}"))
    return _run(edited, plans, answerer, watch)


def _own_probes(edits: Iterable[FlagEdit]) -> list[_Planned]:
    plans = []
    for edit in edits:
        record = edit.record
        view = REDRAWN if edit.is_redrawn else "image generality"
        plans += [
            _Planned(RELIABILITY, edit, edit.question),
            _Planned("text generality", edit, Question(record.image, record.rephrase)),
            _Planned(view, edit, Question(record.image_rephrase, record.prompt)),
            _Planned(
                IMAGE_LOCALITY, edit, Question(record.image_locality, record.image_locality_prompt)
            ),
            _Planned(TEXT_LOCALITY, edit, Question(None, record.text_locality)),
        ]
    return plans


def _run(
    edits: Sequence[FlagEdit], plans: Sequence[_Planned], answerer: Answerer, watch: Watch
) -> Run:
    questions = list(dict.fromkeys(plan.question for plan in plans))

    def ask(stage: str, *, with_edits: bool) -> dict[Question, Answer]:
        with watch(stage, len(questions)) as advance:
            answers = answerer.ask(questions, with_edits=with_edits, advance=advance)
        return dict(zip(questions, answers, strict=True))

    before = ask("unedited answers", with_edits=False)
    with watch("edits", len(edits)) as advance:
        made = answerer.edit(edits, advance)
    edited = ask("probes", with_edits=True)
    off = ask("probes, editing off", with_edits=False)
    by_question = {edit.question: one for edit, one in zip(edits, made, strict=True)}
    known = {
        one.edit_id: edit for edit, one in zip(edits, made, strict=True) if one.edit_id is not None
    }
    probed = []
    for plan in plans:
        q, own = plan.question, by_question.get(plan.edit.question)
        stays = plan.kind in _MUST_STAY
        hit = _is_hit(plan, edited[q], before[q], stays) and (stays or _is_in_force(own))
        probed.append(
            Probed(
                kind=plan.kind,
                edit=plan.edit,
                question=q,
                expected=before[q].text if stays else plan.edit.target,
                answer=edited[q].text,
                hit=hit,
                off=_is_hit(plan, off[q], before[q], stays),
                cause=None if hit else _cause(edited[q], None if stays else own, plan.edit, known),
                note=plan.note,
            )
        )
    answerer.reset()
    return Run(tuple(edits), tuple(made), tuple(probed))


def _is_hit(plan: _Planned, answer: Answer, before: Answer, stays: bool) -> bool:
    if stays:
        return answer.is_same(before)
    return answer.stopped and is_same(answer.text, plan.edit.target)


def _is_in_force(made: Made | None) -> bool:
    return made is not None and made.edit_id is not None


def _cause(answer: Answer, own: Made | None, edit: FlagEdit, known: Mapping[str, FlagEdit]) -> str:
    """Why a probe missed, as far as routing tells. `own` None: nothing should have acted."""
    if own is not None and own.edit_id is None:
        return f"refused: {own.refusal}, {_obstacle(own, edit)}"
    applied = [c for c in answer.considered if c.outcome == "applied"]
    if own is None:
        if not applied:
            return "no edit acted, yet the answer differs"
        return f"an edit acted: {_relation(known.get(applied[0].edit_id), edit)}"
    mine = next((c for c in answer.considered if c.edit_id == own.edit_id), None)
    if mine is None:
        return "own edit not found by the picture"
    if mine.outcome != "applied":
        return f"own edit dropped: {mine.outcome}"
    if applied[0].edit_id != own.edit_id:
        return f"another edit weighed more: {_relation(known.get(applied[0].edit_id), edit)}"
    share = "alone" if mine.weight >= 0.99 else "others with it"
    return f"own edit on top ({share}), wrong answer"


def _obstacle(made: Made, edit: FlagEdit) -> str:
    if made.after is None:
        return "not tried"
    if not is_same(made.after, edit.target):
        return "own answer wrong"
    return "other answers change" if made.damaged else "own answer does not end"


def _relation(other: FlagEdit | None, edit: FlagEdit) -> str:
    if other is None:
        return "unknown"
    flag = "same flag" if other.record.image == edit.record.image else "other flag"
    question = "same question" if other.fact == edit.fact else "other question"
    return f"{flag}, {question}"
