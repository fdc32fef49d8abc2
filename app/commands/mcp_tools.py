"""The tools of `errata mcp`: each is one call of the client, told in words that an agent reads."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, ParamSpec

from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field

from app.commands.mcp_pictures import Allowed, PictureRefused
from app.errata import AsyncClient, Edit, ErrataError, Refused

P = ParamSpec("P")
Reply = dict[str, Any]

PicturePath = Annotated[str | None, Field(description="A picture's path in an allowed folder.")]
PictureData = Annotated[str | None, Field(description="Or its bytes, as base64 or a data URI.")]
EditId = Annotated[str, Field(description="As list_edits and correct give it.")]

INSTRUCTIONS = """\
Errata serves a vision-language model that can be corrected while it runs. Ask with `ask`. If an
answer is wrong and you know the right one, `correct` it: the model then gives it for this picture,
other views of it and other wordings, at once and for everybody. Take it back with `roll_back`. If
you are not sure, `report` the answer and leave the correction to people."""

_READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True)
_REPORTS = ToolAnnotations(read_only_hint=False, destructive_hint=False)
_CORRECTS = ToolAnnotations(read_only_hint=False, destructive_hint=True)
_UNDOES = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True)

_EDIT_FIELDS = (
    "id", "version", "status", "prompt", "target", "before", "after", "verified", "rephrases",
    "not_for", "note", "tags", "created_at", "created_by",
)  # fmt: skip


def tools_of(url: str | None, allowed: Allowed, *, read_only: bool = False) -> MCPServer[None]:
    """An MCP server for the Errata server at `url`. Raises `Misconfigured`."""
    client = AsyncClient(url)

    @asynccontextmanager
    async def closing(_server: MCPServer[None]) -> AsyncIterator[None]:
        async with client:
            yield

    server: MCPServer[None] = MCPServer(
        "errata", instructions=INSTRUCTIONS, lifespan=closing, log_level="WARNING"
    )
    _add_reading(server, client, allowed)
    if not read_only:
        _add_changing(server, client, allowed)
    return server


def _add_reading(server: MCPServer[None], client: AsyncClient, allowed: Allowed) -> None:
    async def ask(
        question: str,
        picture_path: PicturePath = None,
        picture_base64: PictureData = None,
        with_edits: Annotated[bool, Field(description="False: the model uncorrected.")] = True,
    ) -> Reply:
        """Ask the model about a picture. `applied` names the corrections that took part."""
        picture = allowed.picture(picture_path, picture_base64)
        answer = (await client.generate(question, picture, edits=with_edits)).to_dict()
        return {name: answer[name] for name in ("text", "id", "version", "applied")}

    async def explain(
        question: str, picture_path: PicturePath = None, picture_base64: PictureData = None
    ) -> Reply:
        """Ask, and say of every correction with a similar picture why it acted or not."""
        picture = allowed.picture(picture_path, picture_base64)
        answer = (await client.explain(picture, question)).to_dict()
        return {name: answer[name] for name in ("text", "id", "version", "candidates")}

    async def list_edits(
        search: Annotated[str | None, Field(description="In question or answer.")] = None,
        status: Annotated[
            Literal["active", "superseded", "rolled_back", "all"],
            Field(description="active: those in force."),
        ] = "active",
        limit: Annotated[int, Field(ge=1, le=200)] = 20,
    ) -> Reply:
        """List corrections, newest first."""
        listing = client.edits(status=status, search=search, limit=limit)
        return {"edits": [_shown(edit) async for edit in listing]}

    for tool in (ask, explain, list_edits):
        server.add_tool(_guarded(tool), annotations=_READS)


def _add_changing(server: MCPServer[None], client: AsyncClient, allowed: Allowed) -> None:
    async def correct(
        question: str,
        answer: Annotated[str, Field(description="What the model must say, in full.")],
        picture_path: PicturePath = None,
        picture_base64: PictureData = None,
        rephrases: Annotated[
            list[str] | None, Field(description="Further wordings that must get the answer.")
        ] = None,
        not_for: Annotated[
            list[str] | None, Field(description="Questions about the picture to leave alone.")
        ] = None,
        note: Annotated[str | None, Field(description="For people: why.")] = None,
    ) -> Reply:
        """Correct the model's answer, for everybody, until it is rolled back.

        It is tried before it is kept: refused if it does not take, or changes other answers.
        """
        made = await client.edit(
            allowed.picture(picture_path, picture_base64),
            question,
            answer,
            rephrases=rephrases or (),
            not_for=not_for or (),
            note=note,
            tags=("mcp",),
        )
        return _shown(made)

    async def roll_back(
        edit_id: EditId,
        reason: Annotated[str | None, Field(description="For people; kept in the log.")] = None,
    ) -> Reply:
        """Take one correction back. Nothing is deleted, and the old answer returns exactly."""
        done = await client.rollback(edit_id, reason=reason)
        return {"version": done.version, "changed": done.changed, "edit": _shown(done.edit)}

    async def report(
        answer_id: Annotated[str, Field(description="The `id` that ask gave.")],
        verdict: Literal["right", "wrong"] = "wrong",
        correction: Annotated[str | None, Field(description="What would be right.")] = None,
        comment: str | None = None,
    ) -> Reply:
        """Report an answer to the people who correct the model. It changes no answer."""
        made = await client.report(answer_id, verdict, correction=correction, comment=comment)
        return made.to_dict()

    server.add_tool(_guarded(correct), annotations=_CORRECTS)
    server.add_tool(_guarded(roll_back), annotations=_UNDOES)
    server.add_tool(_guarded(report), annotations=_REPORTS)


def _guarded(tool: Callable[P, Awaitable[Reply]]) -> Callable[P, Awaitable[Any]]:
    """The tool, whose errors are answers that an agent can read: code, message, hint."""

    @functools.wraps(tool)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return await tool(*args, **kwargs)
        except ErrataError as error:
            return _failure(error)

    return guarded


def _failure(error: ErrataError) -> CallToolResult:
    if isinstance(error, Refused):
        fields = dict(error.fields)
    elif isinstance(error, PictureRefused):
        fields = {"code": error.code, "message": error.message, "hint": error.hint}
    else:
        fields = {
            "code": type(error).__name__,
            "message": str(error),
            "hint": "Check the address, the key, and that the server runs.",
        }
    text = f"{fields['message']} {fields['hint']} ({fields['code']})"
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content={"error": fields},
        is_error=True,
    )


def _shown(edit: Edit) -> Reply:
    whole = edit.to_dict()
    return {name: whole[name] for name in _EDIT_FIELDS}
