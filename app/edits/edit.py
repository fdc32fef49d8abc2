"""One edit as a value: what was requested, where it stands, what came of it.

    Correction    what the model shall answer, and to what; it stays with the edit
    Order         a correction, and how it is to be made: the request, once it is accepted
    Edit          the correction with where it stands and what came of it, at any stage of its life
    Work          the one thing that changes: an edit under way

Routes turn wire models (`app/schemas`) into orders and edits into wire models. Rows are made here,
so what is stored is said here, and no wire model is ever stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, TypeAdapter

from app.edits.wordings import checked, tidied
from app.history import Caller
from app.store.job_log import EditJob
from app.store.ledger import EditStatus, LedgerEdit, Scope
from app.store.records import EditRecord, IdempotencyKey, StoredImage, digest_of
from app.strict_json import canonical
from app.timing import Stopwatch
from editing_core.identity import slot_prompt
from editing_core.types import EditRequest, ImageArray
from editing_core.verification import Verification

Verify = Literal["strict", "report", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """To `prompt`, on a picture, the model shall answer `target`. Texts are as they are kept."""

    prompt: str
    target: str
    rephrases: tuple[str, ...] = ()
    not_for: tuple[str, ...] = ()
    supersedes: tuple[str, ...] = ()
    note: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def scope(self) -> Scope:
        return Scope(self.rephrases, self.not_for)

    def within(self, scope: Scope) -> Self:
        """The same, for other questions."""
        return replace(self, rephrases=scope.rephrases, not_for=scope.not_for)

    def request(self, pixels: ImageArray) -> EditRequest:
        """What the library is asked for."""
        return EditRequest(pixels, self.prompt, self.target, self.rephrases, self.not_for)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Correction):
    """`editor` None is the server's default. The picture travels beside it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    editor: str | None = None
    verify: Verify = "strict"

    def digest(self, image: str) -> str:
        """What two requests share exactly when they are the same. `image` is the field as sent.

        A field that earlier releases did not know is left out where it is empty.
        """
        fields = json.loads(self.stored())
        if not self.not_for:
            del fields["not_for"]
        return digest_of(canonical({**fields, "image": image}))

    def tidy(self) -> Self:
        """With its lists of questions as they are kept. Raises `InvalidField`."""
        scope = Scope(tidied(self.rephrases, "rephrases"), tidied(self.not_for, "not_for"))
        return self.within(checked(self.prompt, scope))

    def stored(self) -> str:
        """The form in which it waits in the database: a JSON object of its fields."""
        return _ORDER.dump_json(self).decode()

    @classmethod
    def of_stored(cls, text: str) -> Order:
        """Raises `ValueError` where `text` is no order that this program can read."""
        return _ORDER.validate_json(text)


_ORDER = TypeAdapter(Order)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pending edit is. `total` is None where nobody knows it beforehand."""

    stage: Literal["queue", "fit", "verify"]
    done: int = 0
    total: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a trial found. None where nobody wanted to know."""

    before: str | None = None
    after: str | None = None
    verified: bool | None = None
    verified_version: int | None = None
    damaged: tuple[Mapping[str, str], ...] = ()
    refinement_steps: int = 0

    @classmethod
    def of(cls, found: Verification | None) -> Self:
        if found is None:
            return cls()
        return cls(
            before=found.before,
            after=found.after,
            verified=found.verified,
            verified_version=found.version,
            damaged=tuple(damage.wire() for damage in found.damaged),
            refinement_steps=found.refinement_steps,
        )

    @classmethod
    def of_record(cls, record: EditRecord) -> Self:
        return cls(**{name: getattr(record, name) for name in cls.__slots__})

    def fields(self) -> dict[str, Any]:
        """By name, as rows and events have them."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """`version` is that of its commit. `progress` is there while it is pending, `error` once it
    failed: the error's own fields. `editor` is the one that makes it, or made it last."""

    id: str
    wanted: Correction
    editor: str
    image_digest: str
    created_at: str
    created_by: str
    status: EditStatus = "pending"
    version: int | None = None
    progress: Progress | None = None
    found: Findings = Findings()
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None

    @classmethod
    def of_record(cls, record: EditRecord, status: EditStatus) -> Edit:
        """One that was committed."""
        return cls(
            id=record.id,
            wanted=Correction(**{name: getattr(record, name) for name in Correction.__slots__}),
            editor=record.editor,
            image_digest=record.image_digest,
            created_at=record.created_at,
            created_by=record.created_by,
            status=status,
            version=record.version,
            found=Findings.of_record(record),
            timings_ms=record.timings_ms,
        )

    @classmethod
    def of_job(cls, job: EditJob) -> Edit:
        """One that is pending, or ended without a commit; it may be from an earlier release."""
        stored = json.loads(job.request)
        return cls(
            id=job.id,
            wanted=Correction(
                prompt=stored["prompt"],
                target=stored["target"],
                rephrases=tuple(stored["rephrases"]),
                not_for=tuple(stored.get("not_for", ())),
                supersedes=tuple(stored["supersedes"]),
                note=stored["note"],
                tags=tuple(stored["tags"]),
            ),
            editor=job.editor,
            image_digest=job.image_digest,
            created_at=job.created_at,
            created_by=job.created_by,
            status=job.state,
            progress=Progress("queue") if job.state == "pending" else None,
            error=None if job.error is None else json.loads(job.error),
        )

    def place(self, version: int) -> LedgerEdit:
        """Its place in history, were it committed as `version`."""
        slot = (self.image_digest, slot_prompt(self.wanted.prompt))
        return LedgerEdit(self.id, version, slot, self.wanted.supersedes, self.wanted.scope)

    def committed(self, version: int, found: Findings) -> Edit:
        return replace(self, status="active", version=version, progress=None, found=found)

    def record(self) -> EditRecord:
        """Its row, once it has a version."""
        if self.version is None:
            raise ValueError(f"edit {self.id} has no version, so it has no row")
        return EditRecord(
            id=self.id,
            version=self.version,
            editor=self.editor,
            image_digest=self.image_digest,
            created_at=self.created_at,
            created_by=self.created_by,
            timings_ms=self.timings_ms,
            **{name: getattr(self.wanted, name) for name in Correction.__slots__},
            **self.found.fields(),
        )


@dataclass(slots=True, eq=False)
class Work:
    """An edit under way, and what is known of its request only.

    Both flags change under `History.lock` only. `is_kept`: it lies in the job log, and so outlives
    its request and the process. `is_over`: it was committed, failed or was withdrawn, and nothing
    may be made of it any more.
    """

    edit: Edit
    order: Order
    caller: Caller
    key: IdempotencyKey | None
    request_digest: str
    image: StoredImage | None
    is_kept: bool = False
    is_over: bool = False
    watch: Stopwatch = field(default_factory=Stopwatch)

    @classmethod
    def resumed(cls, job: EditJob) -> Work:
        """What an earlier process kept. Raises `ValueError` when this one cannot read it."""
        return cls(
            edit=Edit.of_job(job),
            order=Order.of_stored(job.request),
            caller=Caller(job.request_id, job.created_by, job.api_key),
            key=None
            if job.idempotency_key is None
            else IdempotencyKey(job.idempotency_key, job.api_key),
            request_digest=job.request_digest,
            image=None,
            is_kept=True,
        )

    def job(self) -> EditJob:
        """What is kept of it."""
        return EditJob(
            id=self.edit.id,
            state="pending",
            editor=self.edit.editor,
            request=self.order.stored(),
            image_digest=self.edit.image_digest,
            api_key=self.caller.key_id,
            idempotency_key=None if self.key is None else self.key.name,
            request_digest=self.request_digest,
            created_at=self.edit.created_at,
            created_by=self.caller.actor,
            request_id=self.caller.request_id,
        )

    def has_come_to(self, progress: Progress) -> None:
        self.edit = replace(self.edit, progress=progress)


@dataclass(frozen=True, slots=True)
class Answer:
    """What `POST /edits` is answered with.

    Where an earlier release took the request, `body` is what it answered in full, if it did so at
    once; `unknown` are fields that it did not know, and that its answers are without.
    """

    edit: Edit
    is_replay: bool = False
    body: str | None = None
    unknown: frozenset[str] = frozenset()

    @property
    def status(self) -> int:
        """201 for whatever was committed."""
        return {"pending": 202, "failed": 200, "cancelled": 200}.get(self.edit.status, 201)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change of a committed edit led to: the head, whether it moved, the edit by now."""

    version: int
    changed: bool
    edit: Edit
