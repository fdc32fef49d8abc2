"""What people say of answers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("answer_id", sa.String, nullable=False),
        sa.Column("verdict", sa.String, nullable=False),
        sa.Column("correction", sa.Text),
        sa.Column("comment", sa.Text),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("image_digest", sa.String),
        sa.Column("png", sa.LargeBinary),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("applied", sa.Text, nullable=False),
        sa.Column("created_at", sa.String, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.Column("closed_by", sa.String),
        sa.Column("edit_id", sa.String),
        sa.Column("reason", sa.Text),
        sa.Column("closed_at", sa.String),
        sa.Column("closed_actor", sa.String),
        sa.CheckConstraint("status IN ('open', 'resolved', 'dismissed')", name="known_status"),
    )
    op.create_index("feedback_by_status", "feedback", ["status", "id"])
