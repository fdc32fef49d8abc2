"""What one version brings: a small value for each type of event, with all that it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from app.store.ledger import Change, EventType
from app.store.records import (
    EditRecord,
    Event,
    IdempotencyKey,
    Reencoding,
    Rescoping,
    StoredImage,
    digest_of,
)


@dataclass(frozen=True, slots=True)
class SpentKey:
    """An idempotency key and the request it stands for. `status` is how that was answered."""

    key: IdempotencyKey
    request_digest: str
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A new edit. `timings_ms` is read last, just before the transaction ends."""

    type: ClassVar[EventType] = "edit_created"
    changes: tuple[Change, ...]
    record: EditRecord
    artifact: bytes
    image: StoredImage
    timings_ms: Callable[[], Mapping[str, float]]
    key: SpentKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Switched:
    """One edit taken back, or put back, with what that does to others."""

    type: Literal["rolled_back", "reinstated"]
    changes: tuple[Change, ...]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Rescoped:
    """One edit's new scope, with the artifact whose keys are made for it."""

    rescoping: Rescoping
    artifact: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The edits of an earlier version brought back, and the scopes they had."""

    type: ClassVar[EventType] = "restored"
    changes: tuple[Change, ...]
    from_version: int
    reason: str | None = None
    rescoped: tuple[Rescoped, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reencoded:
    """One edit made anew by other weights. `reason` says what had changed."""

    type: ClassVar[EventType] = "reencoded"
    changes: tuple[Change, ...]
    reencoding: Reencoding
    artifact: bytes
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeChanged:
    """One edit is for other questions, or for fewer."""

    type: ClassVar[EventType] = "scope_changed"
    changes: tuple[Change, ...]
    rescoped: tuple[Rescoped]
    reason: str | None = None


Commit = Created | Switched | Restored | Reencoded | ScopeChanged


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Which version a commit becomes, when and for whom, and the digest it follows."""

    version: int
    at: str
    actor: str
    request_id: str
    previous_digest: str | None


def event_of(commit: Commit, stamp: Stamp) -> Event:
    """The row that says so."""
    event = Event(
        version=stamp.version,
        type=commit.type,
        at=stamp.at,
        actor=stamp.actor,
        request_id=stamp.request_id,
        changes=commit.changes,
        previous_digest=stamp.previous_digest,
    )
    match commit:
        case Created():
            digest = commit.record.digest(digest_of(commit.artifact))
            return replace(event, record_digest=digest)
        case Switched():
            return replace(event, reason=commit.reason)
        case Restored():
            return replace(
                event,
                reason=commit.reason,
                from_version=commit.from_version,
                scopes=tuple(each.rescoping for each in commit.rescoped),
            )
        case ScopeChanged():
            return replace(event, reason=commit.reason, scopes=(commit.rescoped[0].rescoping,))
        case Reencoded():
            return replace(event, reason=commit.reason, reencoding=commit.reencoding)
