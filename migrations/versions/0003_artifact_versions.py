"""Edits made anew: artifacts by version, and what a `reencoded` event brought."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("events", sa.Column("reencoded_edit", sa.String))
    op.add_column("events", sa.Column("reencoding", sa.Text))
    op.create_index("events_by_reencoded_edit", "events", ["reencoded_edit"])
    op.create_table(
        "artifacts_by_version",
        sa.Column("edit_id", sa.String, sa.ForeignKey("edits.id"), primary_key=True),
        sa.Column(
            "version",
            sa.Integer,
            sa.ForeignKey("events.version"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
    )
    # Every artifact there is came with its edit.
    op.execute(
        "INSERT INTO artifacts_by_version (edit_id, version, data, digest) "
        "SELECT artifacts.edit_id, edits.version, artifacts.data, artifacts.digest "
        "FROM artifacts JOIN edits ON edits.id = artifacts.edit_id"
    )
    op.drop_table("artifacts")
    op.rename_table("artifacts_by_version", "artifacts")
