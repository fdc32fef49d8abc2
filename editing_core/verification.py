"""Does an edit take, and does it leave alone what it must? What to ask, and what follows from it.

The edit is tried in a snapshot beside every active one and must find its own way through the
router: what is verified is what will be served. It must give its target to its own prompt and
rephrases, and leave alone the nearest active edits (each asked on its own picture), the questions
that it is not for, and stock questions on its own picture. Where it fails, its expert is refined
and tried again.

A question in which the edit takes no part runs the very path it would run without it, so it is
not answered twice: a single pass shows who takes part.
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
from editing_core.stories import Fetch, Neighbour, Refine, Story, ask, who_acts
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

    def row(self, snapshot: Snapshot) -> GenerationRow:
        return GenerationRow(self.prompt, self.image, snapshot=snapshot)

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
    before = yield from ask(w.row(w.reference) for w in watched)
    after = yield from ask(w.row(candidate) for w in watched)
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
        self._watched += yield from self._not_for(entry.edit_id, rest, candidate)
        self._watched += yield from self._stock_questions(entry.edit_id, rest, candidate)
        self._watched += yield from _neighbours([entry], base, candidate, retired, self._tau)
        own = GenerationRow(self._request.prompt, self._request.image, snapshot=base)
        self.before, *self._before_watched = yield from ask(
            [own, *(w.row(w.reference) for w in self._watched)]
        )
        return (yield from self.again(entry, 0))

    def again(self, entry: MemoryEntry, steps: int) -> Story[_Tried]:
        """Try the edit as it is now."""
        snapshot = self._with(entry)
        own_rows = [GenerationRow(p, self._request.image, snapshot=snapshot) for p in self._prompts]
        answers = yield from ask([*own_rows, *(w.row(snapshot) for w in self._watched)])
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

    def _not_for(self, edit_id: str, rest: Snapshot, candidate: Snapshot) -> Story[list[_Watched]]:
        """Of the questions that the edit is not for, those in which it takes part. None excused."""
        asked = [_Watched(p, self._request.image, rest) for p in self._request.not_for]
        acting = yield from who_acts([w.row(candidate) for w in asked])
        return [w for w, gates in zip(asked, acting, strict=True) if edit_id in gates]

    def _stock_questions(
        self, edit_id: str, rest: Snapshot, candidate: Snapshot
    ) -> Story[list[_Watched]]:
        """Of eight stock questions, those in which the edit takes part.

        Those that the router takes for the edit's own prompt, the likest first, are replaced by
        the next on the list, up to `MAX_EXCUSED`.
        """
        named = {slot_prompt(prompt) for prompt in (*self._prompts, *self._request.not_for)}
        waiting = [q.prompt for q in self._stock if slot_prompt(q.prompt) not in named]
        watched: list[_Watched] = []
        places, excuses = STOCK_QUESTIONS, MAX_EXCUSED
        while waiting and places:
            asked, waiting = waiting[:places], waiting[places:]
            rows = [GenerationRow(p, self._request.image, snapshot=candidate) for p in asked]
            acting = yield from who_acts(rows)
            gates = {
                p: gates[edit_id]
                for p, gates in zip(asked, acting, strict=True)
                if edit_id in gates
            }
            taking_part = sorted(gates, key=lambda prompt: -gates[prompt])
            excused, checked = taking_part[:excuses], taking_part[excuses:]
            watched += [_Watched(prompt, self._request.image, rest) for prompt in checked]
            excuses -= len(excused)
            places -= len(asked) - len(excused)
        return watched


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
    watched: list[_Watched] = []
    for start in range(0, len(nearest), _FETCHED_AT_ONCE):
        found: Sequence[Neighbour] = yield Fetch(tuple(nearest[start : start + _FETCHED_AT_ONCE]))
        asked = [_Watched(n.prompt, n.image, base, n) for n in found]
        touched = [
            not new.isdisjoint(a) for a in (yield from who_acts([w.row(candidate) for w in asked]))
        ]
        if retired:
            then = yield from who_acts([w.row(base) for w in asked])
            touched = [
                now or not retired.isdisjoint(a) for now, a in zip(touched, then, strict=True)
            ]
        watched += [w for w, is_touched in zip(asked, touched, strict=True) if is_touched]
    return watched


def _damages(
    watched: Sequence[_Watched],
    before: Sequence[GenerationResult],
    after: Sequence[GenerationResult],
) -> tuple[Damage, ...]:
    found = (w.damage(b, a) for w, b, a in zip(watched, before, after, strict=True))
    return tuple(damage for damage in found if damage is not None)


def _rivals(edit_id: str, results: Sequence[GenerationResult]) -> tuple[str, ...]:
    """Edits that weigh at least half as much as `edit_id` where both act."""
    found: dict[str, None] = {}
    for result in results:
        weights = {c.edit_id: c.weight for c in result.decision.applied}
        if edit_id in weights:
            least = weights.pop(edit_id) / 2
            found.update(dict.fromkeys(i for i, weight in weights.items() if weight >= least))
    return tuple(found)


def _acts(edit_id: str, result: GenerationResult) -> bool:
    return any(candidate.edit_id == edit_id for candidate in result.decision.applied)
