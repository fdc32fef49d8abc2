"""Seals over all that history brought, the store's identity and owner, and rows set aside.

What earlier releases wrote is sealed when the database is opened, in the transaction of this step.
`scoped` goes: which edits an event's scopes name is told by the seals of their artifacts.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.append_only import refuse_changes

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "store",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("store_id", sa.String, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("jobs", sa.String, nullable=False),
        sa.Column("seal", sa.String, nullable=False),
        sa.CheckConstraint("id = 1", name="one_store"),
    )
    op.create_table(
        "seals",
        sa.Column("kind", sa.String, primary_key=True),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seal", sa.String, nullable=False),
        sa.Column("place", sa.Text),
    )
    op.create_table(
        "set_aside",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("row", sa.Text, nullable=False),
        sa.Column("at_version", sa.Integer, nullable=False),
    )
    op.add_column("edit_jobs", sa.Column("seal", sa.String))
    op.drop_table("scoped")
    refuse_changes("seals")
