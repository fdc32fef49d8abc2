"""What commands that ask, edit and change scopes share: requests to a running server."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import httpx
import typer

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 300.0


def base64_of(image: Path) -> str:
    try:
        return base64.b64encode(image.read_bytes()).decode("ascii")
    except OSError as error:
        raise fail(f"cannot read {image}: {error.strerror}") from error


def post(url: str | None, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The server's answer. Ends the command with the server's own words when it refuses."""
    return _send("POST", url, path, json=body)


def get(url: str | None, path: str) -> dict[str, Any]:
    """The same, for something to be read."""
    return _send("GET", url, path)


def _send(method: str, url: str | None, path: str, **more: Any) -> dict[str, Any]:
    base = url or os.environ.get("ERRATA_URL", DEFAULT_URL)
    key = os.environ.get("ERRATA_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        response = httpx.request(
            method, f"{base}{path}", headers=headers, timeout=TIMEOUT_S, **more
        )
    except httpx.HTTPError as error:
        raise fail(f"no answer from {base}: {error}. Is `errata serve` running?") from error
    answer: dict[str, Any] = response.json()
    if response.is_error:
        raise refused(answer["error"])
    return answer


def refused(error: dict[str, Any]) -> typer.Exit:
    """Say on stderr what the server answered instead; raise what this returns."""
    return fail(f"{error['message']} {error['hint']} ({error['code']})")


def fail(message: str) -> typer.Exit:
    """Say `message` on stderr; raise what this returns."""
    typer.echo(f"errata: {message}", err=True)
    return typer.Exit(1)
