"""The first schema: head, images, edits, artifacts, events, idempotency."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.append_only import refuse_changes

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "head",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.CheckConstraint("id = 1", name="one_row"),
    )
    op.create_table(
        "images",
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("png", sa.LargeBinary, nullable=False),
        sa.Column("png_digest", sa.String, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("at", sa.String, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("request_id", sa.String, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("from_version", sa.Integer),
        sa.Column("changes", sa.Text, nullable=False),
        sa.Column("record_digest", sa.String),
        sa.Column("previous_digest", sa.String),
        sa.Column("digest", sa.String, nullable=False),
    )
    op.create_table(
        "edits",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column(
            "version", sa.Integer, sa.ForeignKey("events.version"), nullable=False, unique=True
        ),
        sa.Column("editor", sa.String, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("slot_prompt", sa.Text, nullable=False),
        sa.Column("image_digest", sa.String, sa.ForeignKey("images.digest"), nullable=False),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
        sa.Column("verified", sa.Boolean),
        sa.Column("verified_version", sa.Integer),
        sa.Column("damaged", sa.Text, nullable=False),
        sa.Column("refinement_steps", sa.Integer, nullable=False),
        sa.Column("rephrases", sa.Text, nullable=False),
        sa.Column("supersedes", sa.Text, nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("created_at", sa.String, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.Column("timings_ms", sa.Text, nullable=False),
    )
    op.create_index("edits_by_slot", "edits", ["image_digest", "slot_prompt"])
    op.create_table(
        "artifacts",
        sa.Column("edit_id", sa.String, sa.ForeignKey("edits.id"), primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
    )
    op.create_table(
        "idempotency",
        sa.Column("api_key", sa.String, primary_key=True),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("request_digest", sa.String, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("edit_id", sa.String, sa.ForeignKey("edits.id"), nullable=False),
        sa.Column("created_at", sa.String, nullable=False),
    )
    op.execute("INSERT INTO head (id, version) VALUES (1, 0)")
    refuse_changes("events")
