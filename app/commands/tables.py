"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

Url = Annotated[str | None, typer.Option(help="The server. [ERRATA_URL or 127.0.0.1:8000]")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the server's answer as JSON.")]

_WIDE = 48


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout, as wide as it needs to be where stdout is no screen."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000)
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(_shown(cell)) for cell in row))
    console.print(table)


def _shown(cell: object) -> str:
    """On one line, and not too wide: texts come from anybody."""
    text = "" if cell is None else " ".join(str(cell).split())
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 1]}\N{HORIZONTAL ELLIPSIS}"
