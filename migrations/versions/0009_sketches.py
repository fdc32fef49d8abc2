"""Sketches beside the keys of stored pictures: what the eyes' judge lays side by side."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Rows without one were made by eyes that knew none: those are made again.
    op.add_column("picture_keys", sa.Column("sketch", sa.LargeBinary))
