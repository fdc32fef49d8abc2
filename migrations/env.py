"""Alembic's entry point. The server hands its own connection in; there is no `alembic.ini`."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
