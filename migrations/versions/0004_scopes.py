"""Scope by example: questions that an edit is not for, and events that change an edit's scope."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("edits", sa.Column("not_for", sa.Text, nullable=False, server_default="[]"))
    op.add_column("events", sa.Column("scopes", sa.Text))
    op.create_table(
        "scoped",
        sa.Column("edit_id", sa.String, sa.ForeignKey("edits.id"), primary_key=True),
        sa.Column(
            "version",
            sa.Integer,
            sa.ForeignKey("events.version"),
            primary_key=True,
            autoincrement=False,
        ),
    )
