"""History folded into state: which edit is active, superseded or rolled back, at any version.

The rule, in full: an edit is `rolled_back` if it was rolled back and not reinstated since.
Otherwise it is `superseded` exactly while another edit that is not rolled back exists which is
newer in the same slot, or names it in `supersedes` (even if that one is itself superseded).
Otherwise it is `active`.

An edit's scope, the questions that it is for and not for, is folded likewise, and so is the version
whose artifact counts: the newest that made it, made it anew or changed its scope.

Pure memory, no I/O. Changes are planned first (what would become of whom), then written to the
log by the caller, then applied. One thread owns a ledger.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

Status = Literal["active", "superseded", "rolled_back"]
EditStatus = Literal[Status, "pending", "stale", "quarantined", "failed", "cancelled"]
"""What is said of an edit, committed or not."""
EventType = Literal[
    "edit_created", "rolled_back", "reinstated", "restored", "reencoded", "scope_changed"
]
Slot = tuple[str, str]
"""Image digest and normalised prompt."""
_NEVER = 2**63
"""Later than any version."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Further questions that an edit is for, beside its prompt, and those that it is not for."""

    rephrases: tuple[str, ...] = ()
    not_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerEdit:
    """What decides an edit's place in history, and the scope it began with. Never changes."""

    id: str
    version: int
    slot: Slot
    supersedes: tuple[str, ...] = ()
    scope: Scope = Scope()


@dataclass(frozen=True, slots=True)
class Change:
    """What an event does to one edit.

    `before` is None for the edit it creates, and "stale" for one made anew: what had changed was
    the weights, so the ledger knew it as `after` all along.
    """

    edit_id: str
    before: Status | Literal["stale"] | None
    after: Status


def _version_of(edit: LedgerEdit) -> int:
    return edit.version


class _Flipped:
    """A set in which some are the other way round, without a copy of it."""

    def __init__(self, base: Set[str], flipped: Set[str]) -> None:
        self._base = base
        self._flipped = flipped

    def __contains__(self, edit_id: object) -> bool:
        return (edit_id in self._base) != (edit_id in self._flipped)


class _View:
    """Who is what while exactly `rolled_back` are rolled back, of the edits up to `version`.

    Of a slot only the newest edit that is not rolled back can be active. It is looked for once, so
    a slot may have thousands.
    """

    def __init__(self, ledger: Ledger, rolled_back: Container[str], version: int) -> None:
        self._ledger = ledger
        self._rolled_back = rolled_back
        self._version = version
        self._newest: dict[Slot, str | None] = {}
        self._named: dict[str, bool] = {}

    def status(self, edit_id: str) -> Status:
        """The rule, of an edit up to the version."""
        if edit_id in self._rolled_back:
            return "rolled_back"
        is_newest = self.newest(self._ledger[edit_id].slot) == edit_id
        return "active" if is_newest and not self._is_named(edit_id) else "superseded"

    def newest(self, slot: Slot) -> str | None:
        """The newest edit of a slot that is not rolled back."""
        if slot not in self._newest:
            self._newest[slot] = next(self._standing(self._ledger.in_slot(slot)), None)
        return self._newest[slot]

    def changed(self, edit: LedgerEdit) -> None:
        """`edit` came, was rolled back or put back: what follows from it is looked for anew."""
        self._newest.pop(edit.slot, None)
        for name in edit.supersedes:
            self._named.pop(name, None)

    def _is_named(self, edit_id: str) -> bool:
        if edit_id not in self._named:
            namers = self._standing(self._ledger.named_by(edit_id))
            self._named[edit_id] = next(namers, None) is not None
        return self._named[edit_id]

    def _standing(self, edit_ids: Sequence[str]) -> Iterator[str]:
        """Those not rolled back, newest first."""
        for edit_id in reversed(edit_ids):
            if edit_id not in self._rolled_back and self._ledger[edit_id].version <= self._version:
                yield edit_id


class Ledger:
    """The fold of an event log up to `head`."""

    def __init__(self) -> None:
        self.head = 0
        self._edits: dict[str, LedgerEdit] = {}
        self._in_order: list[LedgerEdit] = []
        self._by_slot: defaultdict[Slot, list[str]] = defaultdict(list)
        self._named_by: defaultdict[str, list[str]] = defaultdict(list)
        self._rolled_back: set[str] = set()
        self._toggles: list[tuple[int, str, bool]] = []
        self._scopes: defaultdict[str, list[tuple[int, Scope]]] = defaultdict(list)
        self._remade: dict[str, int] = {}
        self._now = _View(self, self._rolled_back, _NEVER)

    def __contains__(self, edit_id: object) -> bool:
        return edit_id in self._edits

    def __getitem__(self, edit_id: str) -> LedgerEdit:
        return self._edits[edit_id]

    def ids(self) -> list[str]:
        """Every edit, in the order of commits."""
        return list(self._edits)

    def in_slot(self, slot: Slot) -> Sequence[str]:
        """Edits of a slot, in the order of commits."""
        return self._by_slot.get(slot, ())

    def named_by(self, edit_id: str) -> Sequence[str]:
        """Edits that name it in `supersedes`, in the order of commits."""
        return self._named_by.get(edit_id, ())

    def status(self, edit_id: str) -> Status:
        return self._now.status(edit_id)

    def active(self, at: int | None = None) -> list[str]:
        """Active edits of a version (default: now), in the order of commits.

        Of an earlier version on any thread: nothing that is committed meanwhile belongs to it.
        """
        version = self.head if at is None else at
        view = self._now
        if version != self.head:
            view = _View(self, self._rolled_back_at(version), version)
        known = bisect_right(self._in_order, version, key=_version_of)
        edits = self._in_order[:known]
        return [edit.id for edit in edits if view.status(edit.id) == "active"]

    def scope(self, edit_id: str, at: int | None = None) -> Scope:
        """What an edit is for and not for, at a version (default: now) that knew it."""
        version = self.head if at is None else at
        changes = [scope for since, scope in self._scopes.get(edit_id, ()) if since <= version]
        return changes[-1] if changes else self._edits[edit_id].scope

    def revision(self, edit_id: str, at: int | None = None) -> int:
        """The version whose artifact counts: at a version, the newest up to it, yet none older than
        the last that made the edit anew, by other weights."""
        version = self.head if at is None else at
        made = self._remade.get(edit_id, self._edits[edit_id].version)
        changes = [since for since, _ in self._scopes.get(edit_id, ()) if since <= version]
        return max([made, *changes])

    def rescoped(self) -> list[str]:
        """Edits whose scope was ever changed."""
        return list(self._scopes)

    def rescoped_since(self, version: int) -> dict[str, Scope]:
        """Edits whose scope is no longer that of `version`, with the scope they had then."""
        known = (i for i in self._scopes if self._edits[i].version <= version)
        then = {edit_id: self.scope(edit_id, version) for edit_id in known}
        return {edit_id: scope for edit_id, scope in then.items() if scope != self.scope(edit_id)}

    # --- plans: what an event would change, in the order of commits -------------------------

    def plan_create(self, edit: LedgerEdit) -> list[Change]:
        """Changes of committing `edit` as version `head + 1`, the new edit last."""
        newest = self._now.newest(edit.slot)
        touched = {*edit.supersedes} if newest is None else {newest, *edit.supersedes}
        changes = [
            Change(other, "active", "superseded")
            for other in sorted(touched, key=self._order)
            if self.status(other) == "active"
        ]
        return [*changes, Change(edit.id, None, "active")]

    def plan_roll_back(self, edit_id: str) -> list[Change]:
        """Empty when it is rolled back already."""
        return self._plan({edit_id} - self._rolled_back)

    def plan_reinstate(self, edit_id: str) -> list[Change]:
        """Empty when it is not rolled back."""
        return self._plan({edit_id} & self._rolled_back)

    def plan_restore(self, version: int) -> list[Change]:
        """Changes that bring back the state of `version`; edits made since are rolled back."""
        known = bisect_right(self._in_order, version, key=_version_of)
        since = {edit.id for edit in self._in_order[known:]}
        return self._plan((self._rolled_back_at(version) | since) ^ self._rolled_back)

    def plan_reencode(self, edit_id: str) -> list[Change]:
        """The one change of making an edit anew: it is served again, if it would be served."""
        status = self.status(edit_id)
        return [Change(edit_id, status if status == "rolled_back" else "stale", status)]

    def plan_scope(self, edit_id: str) -> list[Change]:
        """The one change of another scope: its status stays what it is."""
        status = self.status(edit_id)
        return [Change(edit_id, status, status)]

    # --- application ------------------------------------------------------------------------

    def apply(
        self,
        version: int,
        changes: Sequence[Change],
        *,
        created: LedgerEdit | None = None,
        remade: str | None = None,
        scopes: Mapping[str, Scope] = MappingProxyType({}),
    ) -> None:
        """Take over one event. Raises `ValueError` when it does not follow from what was before.

        `remade` is the edit that it made anew, `scopes` are those it gave to edits. The ledger may
        be half changed after an error and must be thrown away.
        """
        if version != self.head + 1:
            raise ValueError(f"version {version} does not follow {self.head}")
        for change in changes:
            before = self.status(change.edit_id) if change.edit_id in self._edits else None
            told = change.after if change.before == "stale" else change.before
            if before != told:
                raise ValueError(f"{change.edit_id} was {before}, not {told}")
        if created is not None:
            self._add(created, version)
        for change in changes:
            self._toggle(version, change.edit_id, rolled_back=change.after == "rolled_back")
        if remade is not None:
            self._remade[remade] = version
        for edit_id, scope in scopes.items():
            if edit_id not in self._edits:
                raise ValueError(f"it changes the scope of the unknown {edit_id}")
            self._scopes[edit_id].append((version, scope))
        self.head = version
        for change in changes:
            if (after := self.status(change.edit_id)) != change.after:
                raise ValueError(f"{change.edit_id} became {after}, not {change.after}")

    def _add(self, edit: LedgerEdit, version: int) -> None:
        if edit.version != version or edit.id in self._edits:
            raise ValueError(f"{edit.id} cannot be created by version {version}")
        if unknown := [name for name in edit.supersedes if name not in self._edits]:
            raise ValueError(f"{edit.id} supersedes the unknown {unknown[0]}")
        self._file(edit)
        self._now.changed(edit)

    def _file(self, edit: LedgerEdit) -> None:
        self._edits[edit.id] = edit
        self._in_order.append(edit)
        self._by_slot[edit.slot].append(edit.id)
        for name in edit.supersedes:
            self._named_by[name].append(edit.id)

    def _toggle(self, version: int, edit_id: str, *, rolled_back: bool) -> None:
        if rolled_back == (edit_id in self._rolled_back):
            return
        if rolled_back:
            self._rolled_back.add(edit_id)
        else:
            self._rolled_back.discard(edit_id)
        self._toggles.append((version, edit_id, rolled_back))
        self._now.changed(self._edits[edit_id])

    # --- as a whole ------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "head": self.head,
            "edits": [
                [e.id, e.version, *e.slot, e.supersedes, e.scope.rephrases, e.scope.not_for]
                for e in self._in_order
            ],
            "toggles": self._toggles,
            "scopes": [
                [edit_id, since, scope.rephrases, scope.not_for]
                for edit_id, changes in self._scopes.items()
                for since, scope in changes
            ],
            "remade": self._remade,
        }

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> Ledger:
        """The inverse of `dump`."""
        ledger, none = cls(), Scope()
        for edit_id, version, image, prompt, supersedes, rephrases, not_for in values["edits"]:
            scope = Scope(tuple(rephrases), tuple(not_for)) if rephrases or not_for else none
            edit = LedgerEdit(edit_id, version, (image, prompt), tuple(supersedes), scope)
            ledger._file(edit)
        for version, edit_id, rolled_back in values["toggles"]:
            ledger._toggle(version, edit_id, rolled_back=rolled_back)
        for edit_id, since, rephrases, not_for in values["scopes"]:
            ledger._scopes[edit_id].append((since, Scope(tuple(rephrases), tuple(not_for))))
        ledger._remade = dict(values["remade"])
        ledger.head = values["head"]
        return ledger

    # --- the past, and what might be ---------------------------------------------------------

    def _rolled_back_at(self, version: int) -> set[str]:
        state: set[str] = set()
        for at, edit_id, rolled_back in self._toggles:
            if at > version:
                break
            if rolled_back:
                state.add(edit_id)
            else:
                state.discard(edit_id)
        return state

    def _plan(self, flipped: Set[str]) -> list[Change]:
        """What changes when `flipped` are rolled back if they are not, and put back if they are."""
        then = _View(self, _Flipped(self._rolled_back, flipped), self.head)
        return [
            Change(edit_id, before, after)
            for edit_id in sorted(self._affected(then, flipped), key=self._order)
            if (before := self.status(edit_id)) != (after := then.status(edit_id))
        ]

    def _affected(self, then: _View, flipped: Set[str]) -> set[str]:
        """Edits whose status may be another then: who is flipped, and who was or will be before
        them in their slots."""
        affected: set[str] = set()
        for edit_id in flipped:
            edit = self._edits[edit_id]
            newest = (self._now.newest(edit.slot), then.newest(edit.slot))
            affected.update((edit_id, *edit.supersedes), filter(None, newest))
        return affected

    def _order(self, edit_id: str) -> int:
        return self._edits[edit_id].version
