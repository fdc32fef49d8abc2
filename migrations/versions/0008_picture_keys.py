"""Keys of stored pictures, made again by other eyes than those that made them first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "picture_keys",
        sa.Column("image_digest", sa.String, sa.ForeignKey("images.digest"), primary_key=True),
        sa.Column("made_by", sa.String, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
    )
