"""`errata mcp`: the server as tools of the Model Context Protocol, for agents that correct it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from app.commands.client import fail
from app.commands.tables import Url

app = typer.Typer(add_completion=False)


@app.command()
def mcp(
    pictures: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Pictures may be read from this folder, by path. Repeatable. [none]",
        ),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="No tool that changes anything.")
    ] = False,
    url: Url = None,
) -> None:
    """Speak the Model Context Protocol on stdin and stdout, for agents and their desktops.

    Tools: ask, explain, list_edits, report, correct, roll_back. They may do what the key in
    ERRATA_API_KEY may do. A picture is sent as base64, or named by a path inside a folder that
    --pictures allows; no other file is read. Needs `pip install 'errata[mcp]'`.

    Example: errata mcp --pictures ~/Pictures --url http://127.0.0.1:8000
    """
    if importlib.util.find_spec("mcp") is None:
        raise fail("the MCP SDK is not installed: pip install 'errata[mcp]'")
    from app.commands.mcp_pictures import Allowed
    from app.commands.mcp_tools import tools_of
    from app.errata import ErrataError

    try:
        allowed = Allowed.of(pictures or [])
        server = tools_of(url, allowed, read_only=read_only)
    except (ErrataError, ValueError) as error:
        raise fail(str(error)) from error
    server.run("stdio")
