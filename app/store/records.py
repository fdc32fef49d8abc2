"""Rows as values, and the digests that bind them: nothing on disk is believed unchecked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from app.store.ledger import Change, EventType, LedgerEdit, Slot, Status
from app.strict_json import canonical
from editing_core.identity import slot_prompt


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

    @property
    def slot(self) -> Slot:
        return self.image_digest, slot_prompt(self.prompt)

    @property
    def place(self) -> LedgerEdit:
        return LedgerEdit(self.id, self.version, self.slot, self.supersedes)

    def row(self) -> dict[str, Any]:
        row = {name: getattr(self, name) for name in self.__slots__}
        for name in _JSON_COLUMNS:
            value = row[name]
            row[name] = _dump(dict(value) if isinstance(value, Mapping) else list(value))
        return row | {"slot_prompt": slot_prompt(self.prompt)}

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> EditRecord:
        values = {name: row[name] for name in cls.__slots__}
        for name in _JSON_COLUMNS:
            loaded = json.loads(values[name])
            values[name] = loaded if isinstance(loaded, dict) else tuple(loaded)
        return cls(**values)

    def digest(self, artifact_digest: str) -> str:
        """Binds the row, its picture and its artifact; timings are not part of it."""
        row = self.row() | {"artifact_digest": artifact_digest}
        del row["timings_ms"]
        return digest_of(canonical(row))


_JSON_COLUMNS = ("damaged", "rephrases", "supersedes", "tags", "timings_ms")


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
    record_digest: str | None = None
    previous_digest: str | None = None

    @property
    def digest(self) -> str:
        return digest_of(canonical(self.wire()))

    def wire(self) -> dict[str, Any]:
        """The event as the API shows it, without its own digest."""
        return {
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

    def row(self) -> dict[str, Any]:
        return self.wire() | {
            "changes": _dump(_changes_to_wire(self.changes)),
            "digest": self.digest,
        }

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> Event:
        values = {name: row[name] for name in cls.__slots__}
        values["changes"] = tuple(
            Change(c["edit_id"], cast("Status | None", c["from"]), cast("Status", c["to"]))
            for c in json.loads(row["changes"])
        )
        return cls(**values)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _changes_to_wire(changes: Sequence[Change]) -> list[dict[str, str | None]]:
    return [{"edit_id": c.edit_id, "from": c.before, "to": c.after} for c in changes]


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
