"""What events changed, as rows: an event may change any number of edits, and an edit be looked up.

The text beside them stays where it is, for the seals cover it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.append_only import refuse_changes

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column(
            "version",
            sa.Integer,
            sa.ForeignKey("events.version"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("edit_id", sa.String, nullable=False),
        sa.Column("before", sa.String),
        sa.Column("after", sa.String, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("changes_by_edit", "changes", ["edit_id", "version"])
    # Other kinds of databases have no events from before. A text that cannot be read gets no rows,
    # and is named when history is checked.
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "INSERT OR IGNORE INTO changes (version, place, edit_id, before, after) "
            "SELECT events.version, each.key, each.value ->> 'edit_id', each.value ->> 'from', "
            "each.value ->> 'to' FROM events, json_each(CASE WHEN json_valid(changes) "
            "AND json_type(changes) = 'array' THEN changes ELSE '[]' END) AS each"
        )
    refuse_changes("changes")
