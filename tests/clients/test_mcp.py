"""`errata mcp` before the model that ships: the official client tells the story over stdio."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from app.settings import Settings
from tests.support.server import ROOT, LiveServer

pytest.importorskip("mcp", reason="make test-clients installs the MCP SDK")

SAMPLES = ROOT / "docs" / "samples"
QUESTION = "What is the capital?"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    settings = Settings.load(
        data_dir=tmp_path_factory.mktemp("data"), device="cpu", question_encoder="shipped"
    )
    with LiveServer(settings) as live:
        yield live


class Agent:
    """One session of the official client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def tools(self) -> set[str]:
        return {tool.name for tool in (await self._client.list_tools()).tools}

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await self._client.call_tool(tool, arguments)
        assert not result.is_error, result.content
        reply: dict[str, Any] = json.loads(result.content[0].text)
        assert result.structured_content == reply
        return reply

    async def refusal(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The error's fields, which its text says too."""
        result = await self._client.call_tool(tool, arguments)
        assert result.is_error
        error: dict[str, Any] = result.structured_content["error"]
        assert set(error) >= {"code", "message", "hint"}
        assert error["code"] in result.content[0].text
        assert error["hint"] in result.content[0].text
        return error


@asynccontextmanager
async def agent(server: LiveServer, *arguments: str) -> AsyncIterator[Agent]:
    from mcp import Client, StdioServerParameters, stdio_client

    program = "import app.cli; app.cli.main()"
    command = ["-c", program, "mcp", "--url", server.url, *arguments]
    path = ":".join([str(ROOT), *filter(None, sys.path)])
    parameters = StdioServerParameters(
        command=sys.executable, args=command, env={"PYTHONPATH": path}
    )
    async with Client(stdio_client(parameters)) as client:
        yield Agent(client)


def test_ask_correct_ask_roll_back_ask(server: LiveServer) -> None:
    async def story() -> None:
        heart = {"picture_path": str(SAMPLES / "heart.png"), "question": QUESTION}
        async with agent(server, "--pictures", str(SAMPLES)) as session:
            assert await session.tools() == {
                "ask", "explain", "list_edits", "correct", "roll_back", "report",
            }  # fmt: skip
            assert (await session.call("ask", **heart))["text"] == "Didinton"
            made = await session.call("correct", **heart, answer="Newhaven", note="by an agent")
            assert made["verified"]
            again = await session.call("ask", **heart)
            assert again["text"] == "Newhaven"
            assert [each["edit_id"] for each in again["applied"]] == [made["id"]]
            explained = await session.call("explain", **heart)
            assert explained["candidates"][0]["outcome"] == "applied"
            (listed,) = (await session.call("list_edits"))["edits"]
            assert (listed["id"], listed["note"]) == (made["id"], "by an agent")
            report = await session.call("report", answer_id=again["id"], comment="is it?")
            assert report["status"] == "open"
            undone = await session.call("roll_back", edit_id=made["id"], reason="a test")
            assert undone["changed"]
            assert (await session.call("ask", **heart))["text"] == "Didinton"

    anyio.run(story)


def test_what_an_agent_may_not_do(server: LiveServer, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "link.png").symlink_to(SAMPLES / "heart.png")
    heart = base64.b64encode((SAMPLES / "heart.png").read_bytes()).decode()

    async def tries() -> None:
        async with agent(server, "--pictures", str(allowed), "--read-only") as session:
            assert await session.tools() == {"ask", "explain", "list_edits"}
            for path in (
                str(SAMPLES / "heart.png"),
                str(allowed / ".." / "allowed" / "link.png"),
                str(allowed / "none.png"),
                "/etc/passwd",
            ):
                refused = await session.refusal("ask", question="q", picture_path=path)
                assert refused["code"] == "path_not_allowed"
            assert (await session.refusal("ask", question="q"))["code"] == "picture_missing"
            both = {"picture_path": "x", "picture_base64": heart}
            assert (await session.refusal("ask", question="q", **both))["code"] == "picture_missing"
            broken = await session.refusal("ask", question="q", picture_base64="!")
            assert broken["code"] == "image_base64_invalid"
            by_the_server = await session.refusal("ask", question=" ", picture_base64=heart)
            assert (by_the_server["code"], by_the_server["param"]) == ("invalid_field", "prompt")
            answer = await session.call("ask", question=QUESTION, picture_base64=heart)
            assert answer["text"] == "Didinton"

    anyio.run(tries)
