"""Does an edit take, and does it leave alone what it must? What to ask, and what follows from it.

The edit is tried in a snapshot beside every active one and must find its own way through the
router: what is verified is what will be served. It must give its target to its own prompt and
rephrases, and leave alone the nearest active edits (each asked on its own picture), the questions
that it is not for, and stock questions on its own picture. Where it fails, its expert is refined
and tried again.

A question in which the edit takes no part runs the very path it would run without it, so it is
not answered at all. Who takes part is told in two steps: by the words of question and edit alone,
which needs no picture, and where these fit by a pass that routes. What is answered goes with a
guess of its answer, which one pass confirms.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from editing_core.experts.codec import decode_artifact, encode_artifact
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.generation import GenerationRow
from editing_core.identity import slot_prompt
from editing_core.refinement import MAX_STEPS, Refinement, Wanted
from editing_core.stock_questions import StockQuestion
from editing_core.stories import Fetch, Neighbour, Refine, Story, ask, screened, who_acts
from editing_core.types import EditRequest, GenerationResult, ImageArray

MAX_NEIGHBOURS = 32
STOCK_QUESTIONS = 8

MAX_EXCUSED = 2
"""Stock questions that may be taken for the edit's own prompt. Their kinds are distinct, so an
edit that is taken for more of them than this answers what it was not asked."""

_FETCHED_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Damage:
    """One answer that the edit changed and should not have.

    `edit_id` is the other edit's whose own answer it was; None for a question about its own
    picture, a stock question or one that it is not for.
    """

    prompt: str
    before: str
    after: str
    edit_id: str | None = None

    def wire(self) -> dict[str, str]:
        """As the API lists it."""
        what = {"prompt": self.prompt} if self.edit_id is None else {"edit_id": self.edit_id}
        return what | {"before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """What came out, beside the active edits of `version`.

    `entry` is the edit as it was last tried, refined or not, to be stored as it is. `before` and
    `after` are the answers to its own prompt; `failed` are the prompts, its own or rephrases, that
    do not get the target, each with what it gets. `rivals` are active edits that answer those
    prompts with it.
    """

    version: int
    entry: MemoryEntry
    before: str
    after: str
    failed: tuple[tuple[str, str], ...]
    rivals: tuple[str, ...]
    damaged: tuple[Damage, ...]
    refinement_steps: int

    @property
    def verified(self) -> bool:
        return not self.failed and not self.damaged

    @property
    def conflicts_with(self) -> tuple[str, ...]:
        """Active edits whose own answers change, or that keep this one from giving its own."""
        changed = [d.edit_id for d in self.damaged if d.edit_id is not None]
        return tuple(dict.fromkeys([*changed, *self.rivals]))

    @property
    def reason(self) -> str | None:
        """The error code a strict caller refuses it with; None when it is verified."""
        if self.verified:
            return None
        return "edit_conflicts" if self.conflicts_with else "edit_not_effective"


@dataclass(frozen=True, slots=True, eq=False)
class _Watched:
    """A question whose answer may change, with the snapshot that says what it was."""

    prompt: str
    image: ImageArray
    reference: Snapshot
    neighbour: Neighbour | None = None

    @property
    def before(self) -> GenerationRow:
        """Asked as it was. A neighbour probably answers what it was made to."""
        target = None if self.neighbour is None else self.neighbour.target
        return replace(self.row(self.reference), guess=target)

    def row(self, snapshot: Snapshot) -> GenerationRow:
        return GenerationRow(self.prompt, self.image, snapshot=snapshot)

    def after(self, snapshot: Snapshot, before: GenerationResult) -> GenerationRow:
        """Asked anew. It probably answers as it did."""
        return replace(self.row(snapshot), guess=before.token_ids)

    def damage(self, before: GenerationResult, after: GenerationResult) -> Damage | None:
        if (before.text, before.finish_reason) == (after.text, after.finish_reason):
            return None
        if self.neighbour is not None and is_target(after, self.neighbour.target):
            return None  # it answered wrongly, and now answers as it was told
        edit_id = None if self.neighbour is None else self.neighbour.edit_id
        return Damage(self.prompt, before.text, after.text, edit_id)


def is_target(result: GenerationResult, target: str) -> bool:
    """Equal after NFC and trimming, and ended by the stop token rather than by a limit."""
    told = unicodedata.normalize("NFC", target).strip()
    same = unicodedata.normalize("NFC", result.text).strip() == told
    return same and result.finish_reason == "stop"


def verify(
    request: EditRequest,
    entry: MemoryEntry,
    *,
    base: Snapshot,
    retired: Collection[str] = (),
    tau: float,
    stock: Sequence[StockQuestion],
    max_steps: int = MAX_STEPS,
) -> Story[Verification]:
    """The story of one edit: `entry`, made of `request`, beside the active edits of `base`.

    `retired` are the active edits that it supersedes: they are no neighbours, and what they did to
    other questions is not held against it. `max_steps` bounds the refinement; 0 means none.
    """
    trials = _Trials(request, base, frozenset(retired), tau, tuple(stock))
    tried = yield from trials.begin(entry)
    best, steps = tried, 0
    while not tried.passes and tried.is_refinable and steps < max_steps:
        wanted = trials.wanted(tried)
        refined: Refinement | None = yield Refine(entry.edit_id, wanted, max_steps - steps)
        if refined is None or refined.steps == 0:
            break
        steps += refined.steps
        # The bytes that will be stored are tried, not the numbers they were made of.
        artifact = decode_artifact(encode_artifact(refined.artifact))
        tried = yield from trials.again(replace(entry, artifact=artifact), steps)
        best = min(best, tried, key=lambda t: t.badness)
    return Verification(
        version=base.version,
        entry=best.entry,
        before=trials.before.text,
        after=best.own[0].text,
        failed=best.failed,
        rivals=best.rivals,
        damaged=best.damaged,
        refinement_steps=best.steps,
    )


def conflicts(
    entries: Sequence[MemoryEntry],
    *,
    base: Snapshot,
    retired: Collection[str] = (),
    tau: float,
) -> Story[tuple[Damage, ...]]:
    """The story of edits that become active again: whose own answers would change."""
    candidate = base.evolve(base.version + 1, activate=entries, deactivate=list(retired))
    watched = yield from _neighbours(entries, base, candidate, frozenset(retired), tau)
    before = yield from ask(w.before for w in watched)
    after = yield from ask(w.after(candidate, was) for w, was in zip(watched, before, strict=True))
    return _damages(watched, before, after)


@dataclass(frozen=True, slots=True, eq=False)
class _Tried:
    """One try: the answers to its own prompt and rephrases, and what it damaged."""

    entry: MemoryEntry
    snapshot: Snapshot
    own: tuple[GenerationResult, ...]
    failed: tuple[tuple[str, str], ...]
    rivals: tuple[str, ...]
    damaged: tuple[Damage, ...]
    is_refinable: bool
    steps: int

    @property
    def passes(self) -> bool:
        return not self.failed and not self.damaged

    @property
    def badness(self) -> tuple[int, int]:
        return len(self.failed), len(self.damaged)


class _Trials:
    """The tries of one edit: what is watched is decided once, for routing does not change."""

    def __init__(
        self,
        request: EditRequest,
        base: Snapshot,
        retired: frozenset[str],
        tau: float,
        stock: tuple[StockQuestion, ...],
    ) -> None:
        self._request = request
        self._base = base
        self._retired = retired
        self._tau = tau
        self._stock = stock
        self._prompts = tuple(dict.fromkeys((request.prompt, *request.rephrases)))
        self._watched: list[_Watched] = []
        self._before_watched: list[GenerationResult] = []
        self._hurt: dict[int, None] = {}
        self.before: GenerationResult

    def begin(self, entry: MemoryEntry) -> Story[_Tried]:
        """Find out what may change, ask it without the edit, and try the edit."""
        base, retired = self._base, self._retired
        # Without those superseded: what they did to a stock question is not this edit's doing.
        rest = base.evolve(base.version + 1, deactivate=list(retired)) if retired else base
        candidate = self._with(entry)
        self._watched += yield from self._on_own_picture(entry, rest, candidate)
        self._watched += yield from _neighbours([entry], base, candidate, retired, self._tau)
        own = GenerationRow(self._request.prompt, self._request.image, snapshot=base)
        self.before, *self._before_watched = yield from ask(
            [own, *(w.before for w in self._watched)]
        )
        return (yield from self.again(entry, 0))

    def again(self, entry: MemoryEntry, steps: int) -> Story[_Tried]:
        """Try the edit as it is now."""
        snapshot = self._with(entry)
        image, target = self._request.image, self._request.target
        own_rows = [GenerationRow(p, image, snapshot=snapshot, guess=target) for p in self._prompts]
        before = zip(self._watched, self._before_watched, strict=True)
        answers = yield from ask([*own_rows, *(w.after(snapshot, was) for w, was in before)])
        own, after = answers[: len(own_rows)], answers[len(own_rows) :]
        wrong = [
            (prompt, result)
            for prompt, result in zip(self._prompts, own, strict=True)
            if not is_target(result, self._request.target)
        ]
        return _Tried(
            entry,
            snapshot,
            own=tuple(own),
            failed=tuple((prompt, result.text) for prompt, result in wrong),
            rivals=_rivals(entry.edit_id, [result for _, result in wrong]),
            damaged=self._note(after),
            # No expert reaches a prompt at which the router does not let it act.
            is_refinable=all(_acts(entry.edit_id, result) for _, result in wrong),
            steps=steps,
        )

    def wanted(self, tried: _Tried) -> tuple[Wanted, ...]:
        """What the refined expert must answer: its own prompts, and all it ever damaged."""
        request, snapshot = self._request, tried.snapshot
        return (
            *(
                Wanted(GenerationRow(p, request.image, snapshot=snapshot), request.target)
                for p in self._prompts
            ),
            *(
                Wanted(self._watched[i].row(snapshot), self._before_watched[i].token_ids, True)
                for i in self._hurt
            ),
        )

    def _with(self, entry: MemoryEntry) -> Snapshot:
        version = self._base.version + 1
        return self._base.evolve(version, activate=[entry], deactivate=list(self._retired))

    def _note(self, after: Sequence[GenerationResult]) -> tuple[Damage, ...]:
        for i, watched in enumerate(self._watched):
            if watched.damage(self._before_watched[i], after[i]) is not None:
                self._hurt[i] = None
        return _damages(self._watched, self._before_watched, after)

    def _on_own_picture(
        self, entry: MemoryEntry, rest: Snapshot, candidate: Snapshot
    ) -> Story[list[_Watched]]:
        """Questions about its own picture in which the edit takes part, and should not.

        Of those that it is not for, none is excused. Of eight stock questions, those that the
        router takes for the edit's own prompt, the likest first, are replaced by the next on the
        list, up to `MAX_EXCUSED`.
        """
        not_for = self._request.not_for
        named = {slot_prompt(prompt) for prompt in (*self._prompts, *not_for)}
        stock = [q.prompt for q in self._stock if slot_prompt(q.prompt) not in named]
        asked = (*not_for, *stock[: STOCK_QUESTIONS + MAX_EXCUSED])
        gates = yield from self._gates(entry, asked, candidate)
        watched = [i for i in range(len(not_for)) if gates[i] is not None]
        waiting = list(range(len(not_for), len(asked)))
        places, excuses = STOCK_QUESTIONS, MAX_EXCUSED
        while waiting and places:
            some, waiting = waiting[:places], waiting[places:]
            found = {i: gate for i in some if (gate := gates[i]) is not None}
            taking_part = sorted(found, key=lambda i: -found[i])
            excused, checked = taking_part[:excuses], taking_part[excuses:]
            watched += checked
            excuses -= len(excused)
            places -= len(some) - len(excused)
        return [_Watched(asked[i], self._request.image, rest) for i in watched]

    def _gates(
        self, entry: MemoryEntry, asked: Sequence[str], candidate: Snapshot
    ) -> Story[list[float | None]]:
        """The edit's text gate at each question about its picture; None where it takes no part."""
        gates: list[float | None] = [None] * len(asked)
        may_act = yield from screened(asked, [entry])
        left = [i for i, may in enumerate(may_act) if may]
        rows = [GenerationRow(asked[i], self._request.image, snapshot=candidate) for i in left]
        for i, acting in zip(left, (yield from who_acts(rows)), strict=True):
            gates[i] = acting.get(entry.edit_id)
        return gates


def _neighbours(
    entries: Sequence[MemoryEntry],
    base: Snapshot,
    candidate: Snapshot,
    retired: frozenset[str],
    tau: float,
) -> Story[list[_Watched]]:
    """Of the nearest active edits, those whose own answer a change might touch."""
    cosines: dict[str, float] = {}
    for entry in entries:
        for edit_id, cosine in base.image_candidates(entry.artifact.key.image, tau):
            cosines[edit_id] = max(cosine, cosines.get(edit_id, -1.0))
    for edit_id in (*retired, *(entry.edit_id for entry in entries)):
        cosines.pop(edit_id, None)
    nearest = sorted(cosines, key=lambda edit_id: (-cosines[edit_id], edit_id))[:MAX_NEIGHBOURS]
    new = {entry.edit_id for entry in entries}
    prompts = [base.entries[edit_id].prompt for edit_id in nearest]
    gone = [base.entries[edit_id] for edit_id in retired if edit_id in base.entries]
    may_come = dict(zip(nearest, (yield from screened(prompts, entries)), strict=True))
    may_go = dict(zip(nearest, (yield from screened(prompts, gone)), strict=True))
    left = [edit_id for edit_id in nearest if may_come[edit_id] or may_go[edit_id]]
    watched: list[_Watched] = []
    for start in range(0, len(left), _FETCHED_AT_ONCE):
        fetched: Sequence[Neighbour] = yield Fetch(tuple(left[start : start + _FETCHED_AT_ONCE]))
        asked = {n.edit_id: _Watched(n.prompt, n.image, base, n) for n in fetched}
        coming = [edit_id for edit_id in asked if may_come[edit_id]]
        touched = yield from _touched_by(new, [asked[i] for i in coming], candidate)
        # What a superseded edit did matters only where the new one does nothing.
        going = [i for i in asked if may_go[i] and asked[i] not in touched]
        touched += yield from _touched_by(retired, [asked[i] for i in going], base)
        watched += [w for w in asked.values() if w in touched]
    return watched


def _touched_by(
    edits: Collection[str], asked: Sequence[_Watched], snapshot: Snapshot
) -> Story[list[_Watched]]:
    """Those questions in which one of `edits`, of `snapshot`, takes part."""
    acting = yield from who_acts([w.row(snapshot) for w in asked])
    return [w for w, gates in zip(asked, acting, strict=True) if not gates.keys().isdisjoint(edits)]


def _damages(
    watched: Sequence[_Watched],
    before: Sequence[GenerationResult],
    after: Sequence[GenerationResult],
) -> tuple[Damage, ...]:
    found = (w.damage(b, a) for w, b, a in zip(watched, before, after, strict=True))
    return tuple(damage for damage in found if damage is not None)


def _rivals(edit_id: str, results: Sequence[GenerationResult]) -> tuple[str, ...]:
    """Edits that keep `edit_id` from answering: those that answer in its place, or are too near to
    it to choose, and where both act, those that weigh at least half as much."""
    found: dict[str, None] = {}
    for result in results:
        others = {c.edit_id: c for c in result.decision.candidates}
        own = others.pop(edit_id, None)
        if own is None:
            continue
        for other in others.values():
            answers_instead = own.outcome == "outweighed" and other.outcome == "applied"
            too_near = own.outcome == other.outcome == "ambiguous"
            both_act = own.outcome == other.outcome == "applied"
            if answers_instead or too_near or (both_act and other.weight >= own.weight / 2):
                found[other.edit_id] = None
    return tuple(found)


def _acts(edit_id: str, result: GenerationResult) -> bool:
    return any(candidate.edit_id == edit_id for candidate in result.decision.applied)
