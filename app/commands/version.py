"""`errata version`: what is installed, and what a server runs."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Annotated

import typer

from app.commands.client import server
from app.commands.tables import AsJson, print_json, print_table

app = typer.Typer(add_completion=False)

_SHOWN = ("errata", "torch", "transformers", "faiss-cpu", "sqlalchemy", "fastapi")


@app.command()
def version(
    url: Annotated[str | None, typer.Option(help="A running server: what it serves.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the versions of Errata and what it stands on; with --url, those of a server.

    Example: errata version --url http://127.0.0.1:8000 --json
    """
    if url is None:
        known = {name: importlib.metadata.version(name) for name in _SHOWN}
        known["python"] = platform.python_version()
    else:
        with server(url) as client:
            known = client.versions().to_dict()
    if as_json:
        print_json(known)
        return
    rows = [
        (
            name,
            ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value,
        )
        for name, value in known.items()
    ]
    print_table(("", "version"), rows)
