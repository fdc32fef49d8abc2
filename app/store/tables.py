"""The schema, as the newest migration leaves it.

`events` is the truth: append-only, hash-chained, one row per version. Rows of `edits`,
`artifacts`, `images` and `idempotency` never change once written, and `seals` binds each of them to
the event that brought it; what is active is a fold of the events.
`edit_jobs` is no part of history: an edit that is not committed has made no version.
Bytes lie in the same database, so that one transaction commits everything or nothing.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.engine import Dialect

metadata = MetaData()


class Bytes(LargeBinary):
    """Given back as it is stored: where a stranger wrote something else, that is for the reader."""

    def result_processor(self, dialect: Dialect, coltype: object) -> None:
        return None


class Flag(Boolean):
    """The same: 0, 1 or NULL, if nobody wrote anything else."""

    def result_processor(self, dialect: Dialect, coltype: object) -> None:
        return None


head = Table(
    "head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", Integer, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)
"""The counter that versions are taken from, in the transaction that uses the number."""

images = Table(
    "images",
    metadata,
    Column("digest", String, primary_key=True),
    Column("png", Bytes, nullable=False),
    Column("png_digest", String, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
)

edits = Table(
    "edits",
    metadata,
    Column("id", String, primary_key=True),
    Column("version", Integer, ForeignKey("events.version"), nullable=False, unique=True),
    Column("editor", String, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("slot_prompt", Text, nullable=False),
    Column("image_digest", String, ForeignKey("images.digest"), nullable=False),
    Column("before", Text),
    Column("after", Text),
    Column("verified", Flag),
    Column("verified_version", Integer),
    Column("damaged", Text, nullable=False),
    Column("refinement_steps", Integer, nullable=False),
    Column("rephrases", Text, nullable=False),
    Column("supersedes", Text, nullable=False),
    Column("note", Text),
    Column("tags", Text, nullable=False),
    Column("created_at", String, nullable=False),
    Column("created_by", String, nullable=False),
    Column("timings_ms", Text, nullable=False),
    Column("not_for", Text, nullable=False, server_default="[]"),
    Index("edits_by_slot", "image_digest", "slot_prompt"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("edit_id", String, ForeignKey("edits.id"), primary_key=True),
    Column("version", Integer, ForeignKey("events.version"), primary_key=True, autoincrement=False),
    Column("data", Bytes, nullable=False),
    Column("digest", String, nullable=False),
)
"""`data` holds the expert and its routing keys, as `editing_core.experts.codec` writes them.

`version` is the event that brought it: the edit's own, one that re-encoded it, or one that changed
its scope. The newest is the one that counts.
"""

events = Table(
    "events",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("type", String, nullable=False),
    Column("at", String, nullable=False),
    Column("actor", String, nullable=False),
    Column("request_id", String, nullable=False),
    Column("reason", Text),
    Column("from_version", Integer),
    Column("changes", Text, nullable=False),
    Column("reencoded_edit", String),
    Column("reencoding", Text),
    Column("record_digest", String),
    Column("previous_digest", String),
    Column("digest", String, nullable=False),
    Column("scopes", Text),
    Index("events_by_reencoded_edit", "reencoded_edit"),
)
"""`record_digest` binds the created edit's row and artifact to the chain.

`changes` is how many edits it changed (table `changes`); earlier releases wrote the list itself.
`reencoding` is what a `reencoded` event brought, the digest of its artifact included;
`reencoded_edit` is the edit that it names, once more, to be looked up by. `scopes` is what the
event changed of the scopes of edits, the digests of their new artifacts included.
"""

changes = Table(
    "changes",
    metadata,
    Column("version", Integer, ForeignKey("events.version"), primary_key=True, autoincrement=False),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("edit_id", String, nullable=False),
    Column("before", String),
    Column("after", String, nullable=False),
    Index("changes_by_edit", "edit_id", "version"),
    sqlite_with_rowid=False,
)
"""What each event changed, in the event's order. Bound by the event's digest, which covers all."""

seals = Table(
    "seals",
    metadata,
    Column("kind", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("seal", String, nullable=False),
    Column("place", Text),
)
"""One row for each row that history brought (`app/store/seals.py`): `kind` is its table, `version`
the event that brought it. `place` is what of an edit decides the state of edits."""

store = Table(
    "store",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("store_id", String, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("owner", String, nullable=False),
    Column("jobs", String, nullable=False),
    Column("seal", String, nullable=False),
    CheckConstraint("id = 1", name="one_store"),
)
"""Which store this is, who writes it (`app/store/owner.py`), and a digest of all its jobs."""

set_aside = Table(
    "set_aside",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String, nullable=False),
    Column("row", Text, nullable=False),
    Column("at_version", Integer, nullable=False),
)
"""Rows that no event brought and that were in the way of one, as JSON. Never read again."""

picture_keys = Table(
    "picture_keys",
    metadata,
    Column("image_digest", String, ForeignKey("images.digest"), primary_key=True),
    Column("made_by", String, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("digest", String, nullable=False),
    Column("sketch", LargeBinary),
)
"""Image keys (float32, little-endian) and sketches (int8) made again by other eyes than those of
the artifacts; the digest is that of both."""

idempotency = Table(
    "idempotency",
    metadata,
    Column("api_key", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("request_digest", String, nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("edit_id", String, ForeignKey("edits.id"), nullable=False),
    Column("created_at", String, nullable=False),
)
"""`body` is empty: a replay is rendered from the edit's row. Earlier releases kept it whole."""

keyring = Table(
    "keyring",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("pepper", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="one_keyring"),
)
"""What the tags of all API keys are made with."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("label", String, nullable=False, unique=True),
    Column("scope", String, nullable=False),
    Column("requests_per_minute", Integer),
    Column("edits_per_day", Integer),
    Column("salt", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created_at", String, nullable=False),
    Column("created_by", String, nullable=False),
    Column("revoked_at", String),
    Column("revoked_by", String),
)
"""No part of history. A revoked key stays, for its label is in the audit trail."""

feedback = Table(
    "feedback",
    metadata,
    Column("id", String, primary_key=True),
    Column("status", String, nullable=False),
    Column("answer_id", String),
    Column("verdict", String, nullable=False),
    Column("correction", Text),
    Column("comment", Text),
    Column("prompt", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("image_digest", String),
    Column("png", LargeBinary),
    Column("version", Integer),
    Column("applied", Text, nullable=False),
    Column("created_at", String, nullable=False),
    Column("created_by", String, nullable=False),
    Column("closed_by", String),
    Column("edit_id", String),
    Column("reason", Text),
    Column("closed_at", String),
    Column("closed_actor", String),
    Column("source", String),
    Column("source_id", String),
    CheckConstraint("status IN ('open', 'resolved', 'dismissed')", name="known_status"),
    Index("feedback_by_status", "status", "id"),
    Index("feedback_by_source", "source", "source_id", unique=True),
)
"""What people say of answers. No part of history; the picture goes when a report is closed.

A report from elsewhere has `source` and `source_id`, and neither `answer_id` nor `version`."""

firings = Table(
    "firings",
    metadata,
    Column("edit_id", String, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("last_at", String, nullable=False),
)
"""How often an edit took part in an answer, at least. No part of history."""

webhook = Table(
    "webhook",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("url_digest", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("feedback_id", String),
    Column("updated_at", String, nullable=False),
    CheckConstraint("id = 1", name="one_webhook"),
)
"""How far the webhook's receiver has been told: of events, and of reports. No part of history."""

edit_jobs = Table(
    "edit_jobs",
    metadata,
    Column("id", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("editor", String, nullable=False),
    Column("request", Text, nullable=False),
    Column("image_digest", String, nullable=False),
    Column("png", Bytes),
    Column("png_digest", String),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("error", Text),
    Column("api_key", String, nullable=False),
    Column("idempotency_key", String),
    Column("request_digest", String, nullable=False),
    Column("created_at", String, nullable=False),
    Column("created_by", String, nullable=False),
    Column("request_id", String, nullable=False),
    Column("updated_at", String, nullable=False),
    Column("seal", String),
    CheckConstraint("state IN ('pending', 'failed', 'cancelled')", name="known_state"),
    CheckConstraint("state <> 'pending' OR png IS NOT NULL", name="pending_has_picture"),
    Index("edit_jobs_by_state", "state"),
    Index("edit_jobs_by_key", "api_key", "idempotency_key", unique=True),
)
"""Edits that were answered 202. `id` is the edit's own; its commit deletes the row, in the same
transaction. `request` is the order without its picture, which goes when the edit does."""
