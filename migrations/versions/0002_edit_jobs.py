"""Edits that take long: what was asked, kept until it is committed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "edit_jobs",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("editor", sa.String, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("image_digest", sa.String, nullable=False),
        sa.Column("png", sa.LargeBinary),
        sa.Column("png_digest", sa.String),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("api_key", sa.String, nullable=False),
        sa.Column("idempotency_key", sa.String),
        sa.Column("request_digest", sa.String, nullable=False),
        sa.Column("created_at", sa.String, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.Column("request_id", sa.String, nullable=False),
        sa.Column("updated_at", sa.String, nullable=False),
        sa.CheckConstraint("state IN ('pending', 'failed', 'cancelled')", name="known_state"),
        sa.CheckConstraint("state <> 'pending' OR png IS NOT NULL", name="pending_has_picture"),
    )
    op.create_index("edit_jobs_by_state", "edit_jobs", ["state"])
    op.create_index("edit_jobs_by_key", "edit_jobs", ["api_key", "idempotency_key"], unique=True)
