"""What the commands that ask a running server share: the client, and one line where it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from app.errata import Client, ErrataError


@contextmanager
def server(url: str | None, *, retries: int = 0) -> Iterator[Client]:
    """The server at `url`, or where the environment says.

    Whatever goes wrong inside ends the command: the server's own words, or what stands between.
    """
    try:
        with Client(url, retries=retries) as client:
            yield client
    except ErrataError as error:
        raise fail(str(error)) from error


def fail(message: str) -> typer.Exit:
    """Say `message` on stderr; raise what this returns."""
    typer.echo(f"errata: {message}", err=True)
    return typer.Exit(1)
