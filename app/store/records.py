"""Rows as values, and the digests that bind them: nothing on disk is believed unchecked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from app.store.ledger import Change, EventType, LedgerEdit, Scope, Slot
from app.strict_json import canonical
from editing_core.identity import slot_prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeBy:
    """Identity of the weights that made an artifact."""

    editor: str
    editor_fingerprint: str
    backbone_fingerprint: str
    router_fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reencoding:
    """An edit made anew from its stored request: by which weights, and how it was tried.

    All of it lies in its event, and so in the chain of digests.
    """

    edit_id: str
    artifact_digest: str
    old: MadeBy
    new: MadeBy
    before: str | None
    after: str | None
    verified: bool | None
    verified_version: int | None
    damaged: tuple[Mapping[str, str], ...]
    refinement_steps: int

    def wire(self) -> dict[str, Any]:
        """As the event holds it and the API shows it."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["from"], values["to"] = asdict(values.pop("old")), asdict(values.pop("new"))
        return values | {"damaged": [dict(damage) for damage in self.damaged]}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Reencoding:
        values = dict(wire)
        values["old"], values["new"] = MadeBy(**values.pop("from")), MadeBy(**values.pop("to"))
        return cls(**values | {"damaged": tuple(values["damaged"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescoping:
    """An edit under new keys: which questions it is for and not for since, and how it was tried.

    All of it lies in its event, and so in the chain of digests.
    """

    edit_id: str
    rephrases: tuple[str, ...]
    not_for: tuple[str, ...]
    artifact_digest: str
    before: str | None
    after: str | None
    verified: bool | None
    verified_version: int | None
    damaged: tuple[Mapping[str, str], ...]
    refinement_steps: int

    @property
    def scope(self) -> Scope:
        return Scope(self.rephrases, self.not_for)

    def wire(self) -> dict[str, Any]:
        """As the event holds it and the API shows it."""
        values = {name: getattr(self, name) for name in self.__slots__}
        lists = {name: list(values[name]) for name in ("rephrases", "not_for")}
        return values | lists | {"damaged": [dict(damage) for damage in self.damaged]}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Rescoping:
        lists = {name: tuple(wire[name]) for name in ("rephrases", "not_for", "damaged")}
        return cls(**{**wire, **lists})


@dataclass(frozen=True, slots=True)
class StoredImage:
    """`png` has no metadata; `digest` is over its pixels (see `app/images.py`)."""

    digest: str
    png: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """What a client names one request by, and the API key under which it did: theirs alone."""

    name: str
    api_key: str = ""

    @property
    def text(self) -> str:
        """One text for both, which no other key has: a name is a single line."""
        return f"{self.api_key}\n{self.name}" if self.api_key else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRecord:
    """One row of `edits`: everything about an edit that never changes."""

    id: str
    version: int
    editor: str
    prompt: str
    target: str
    image_digest: str
    before: str | None
    after: str | None
    verified: bool | None
    verified_version: int | None
    damaged: tuple[Mapping[str, str], ...] = ()
    refinement_steps: int = 0
    rephrases: tuple[str, ...] = ()
    supersedes: tuple[str, ...] = ()
    note: str | None = None
    tags: tuple[str, ...] = ()
    created_at: str
    created_by: str
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    not_for: tuple[str, ...] = ()

    @property
    def slot(self) -> Slot:
        return self.image_digest, slot_prompt(self.prompt)

    @property
    def place(self) -> LedgerEdit:
        scope = Scope(self.rephrases, self.not_for)
        return LedgerEdit(self.id, self.version, self.slot, self.supersedes, scope)

    def row(self) -> dict[str, Any]:
        row = {name: getattr(self, name) for name in self.__slots__}
        for name in _JSON_COLUMNS:
            value = row[name]
            row[name] = _dump(dict(value) if isinstance(value, Mapping) else list(value))
        return row | {"slot_prompt": slot_prompt(self.prompt)}

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> EditRecord:
        """Of a row that was written so; of another, `ValueError`, `KeyError` or `TypeError`."""
        values = {name: row[name] for name in cls.__slots__}
        for name in _JSON_COLUMNS:
            loaded = () if values[name] == "[]" else json.loads(values[name])
            values[name] = loaded if isinstance(loaded, dict) else tuple(loaded)
        values["verified"] = _FLAGS[row["verified"]]
        return cls(**values)

    def made_anew(self, reencoding: Reencoding) -> EditRecord:
        """The edit as it stands since: another editor, perhaps, and what its last trial found."""
        return replace(
            self,
            editor=reencoding.new.editor,
            before=reencoding.before,
            after=reencoding.after,
            verified=reencoding.verified,
            verified_version=reencoding.verified_version,
            damaged=reencoding.damaged,
            refinement_steps=reencoding.refinement_steps,
        )

    def rescoped(self, rescoping: Rescoping) -> EditRecord:
        """The edit as it stands since: for other questions, and what its last trial found."""
        return replace(
            self,
            rephrases=rescoping.rephrases,
            not_for=rescoping.not_for,
            before=rescoping.before,
            after=rescoping.after,
            verified=rescoping.verified,
            verified_version=rescoping.verified_version,
            damaged=rescoping.damaged,
            refinement_steps=rescoping.refinement_steps,
        )

    def digest(self, artifact_digest: str) -> str:
        """Binds the row, its picture and its artifact; timings are not part of it.

        `not_for` is left out where there is none: digests of older rows stay what they are.
        """
        row = self.row() | {"artifact_digest": artifact_digest}
        del row["timings_ms"]
        if not self.not_for:
            del row["not_for"]
        return digest_of(canonical(row))


_FLAGS: Mapping[int | None, bool | None] = {None: None, 0: False, 1: True}
_JSON_COLUMNS = ("damaged", "rephrases", "supersedes", "tags", "timings_ms", "not_for")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row of `events`: one accepted change, one version."""

    version: int
    type: EventType
    at: str
    actor: str
    request_id: str
    reason: str | None = None
    from_version: int | None = None
    changes: tuple[Change, ...]
    reencoding: Reencoding | None = None
    record_digest: str | None = None
    previous_digest: str | None = None
    scopes: tuple[Rescoping, ...] = ()

    @property
    def digest(self) -> str:
        return digest_of(canonical(self.wire()))

    def wire(self) -> dict[str, Any]:
        """The event as the API shows it, without its own digest."""
        wire: dict[str, Any] = {
            "version": self.version,
            "type": self.type,
            "at": self.at,
            "actor": self.actor,
            "request_id": self.request_id,
            "reason": self.reason,
            "from_version": self.from_version,
            "changes": _changes_to_wire(self.changes),
            "record_digest": self.record_digest,
            "previous_digest": self.previous_digest,
        }
        # Left out where there is none: digests of events older than a field stay what they are.
        if self.reencoding is not None:
            wire["reencoding"] = self.reencoding.wire()
        if self.scopes:
            wire["scopes"] = [rescoping.wire() for rescoping in self.scopes]
        return wire

    def row(self) -> dict[str, Any]:
        made_anew = self.reencoding
        return self.wire() | {
            "changes": _dump(len(self.changes)),
            "reencoded_edit": made_anew.edit_id if made_anew else None,
            "reencoding": _dump(made_anew.wire()) if made_anew else None,
            "scopes": _dump([each.wire() for each in self.scopes]) if self.scopes else None,
            "digest": self.digest,
        }

    def change_rows(self) -> list[dict[str, Any]]:
        """The rows of `changes` that belong to it."""
        return [
            {
                "version": self.version,
                "place": place,
                "edit_id": change.edit_id,
                "before": change.before,
                "after": change.after,
            }
            for place, change in enumerate(self.changes)
        ]

    @classmethod
    def from_row(cls, row: Mapping[Any, Any], changes: Sequence[Change]) -> Event:
        """Raises `ValueError` where the row contradicts itself."""
        values = {name: row[name] for name in cls.__slots__}
        values["changes"] = tuple(changes)
        values["reencoding"] = reencoding_of(row)
        values["scopes"] = scopes_of(row["scopes"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class ListedEvent:
    """An event as lists show it: with its first changes, out of `num_changes`, and its digest."""

    event: Event
    num_changes: int
    digest: str

    def wire(self) -> dict[str, Any]:
        wire = self.event.wire() | {"digest": self.digest}
        if len(self.event.changes) < self.num_changes:
            wire["num_changes"] = self.num_changes
        return wire


def num_changes_of(row: Mapping[Any, Any]) -> int:
    """How many edits the event of this row changed."""
    told = json.loads(row["changes"])
    return len(told) if isinstance(told, list) else int(told)


def reencoding_of(row: Mapping[Any, Any]) -> Reencoding | None:
    """What a row of `events` says was made anew. Raises `ValueError` where it names two edits."""
    if row["reencoding"] is None and row["reencoded_edit"] is None:
        return None
    found = Reencoding.from_wire(json.loads(row["reencoding"] or "{}"))
    if found.edit_id != row["reencoded_edit"]:
        raise ValueError(f"it made {found.edit_id} anew, not {row['reencoded_edit']}")
    return found


def scopes_of(column: str | None) -> tuple[Rescoping, ...]:
    """What the column `scopes` of a row of `events` holds."""
    return tuple(map(Rescoping.from_wire, json.loads(column))) if column else ()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _changes_to_wire(changes: Sequence[Change]) -> list[dict[str, str | None]]:
    return [{"edit_id": c.edit_id, "from": c.before, "to": c.after} for c in changes]


_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
