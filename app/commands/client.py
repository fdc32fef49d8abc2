"""What the commands that ask a running server share: requests, and one line where they fail.

A server on this machine is addressed past any proxy that the environment names: no proxy could
reach it. Whatever else may stand between is the environment's to say.
"""

from __future__ import annotations

import base64
import ipaddress
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


class Refused(Exception):
    """The server answered with an error; `error` has its fields."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.error = error


def post(url: str | None, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The server's answer. Ends the command with the server's own words when it refuses."""
    try:
        return send("POST", url, path, json=body)
    except Refused as refusal:
        raise refused(refusal.error) from None


def get(url: str | None, path: str) -> dict[str, Any]:
    """The same, for something to be read."""
    try:
        return send("GET", url, path)
    except Refused as refusal:
        raise refused(refusal.error) from None


def send(
    method: str, url: str | None, path: str, *, idempotency_key: str | None = None, **more: Any
) -> dict[str, Any]:
    """The server's answer. Raises `Refused`; ends the command where no server of ours answers."""
    base = _base(url)
    key = os.environ.get("ERRATA_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if idempotency_key is not None:
        headers["Idempotency-Key"] = idempotency_key
    try:
        with httpx.Client(trust_env=not _is_here(base), timeout=TIMEOUT_S) as client:
            response = client.request(method, f"{base}{path}", headers=headers, **more)
    except httpx.HTTPError as error:
        raise fail(f"no answer from {base}: {error}. Is `errata serve` running?") from error
    except httpx.InvalidURL as error:
        raise fail(f"{base} is no address ({error}); one is like {DEFAULT_URL}") from error
    except UnicodeEncodeError as error:
        raise fail("ERRATA_API_KEY holds characters that no key has") from error
    except (ImportError, ValueError) as error:  # a proxy of a kind that httpx has no package for
        raise fail(
            f"the proxy that the environment names cannot be used: {error} "
            "Name the server in NO_PROXY, or unset ALL_PROXY, HTTP_PROXY and HTTPS_PROXY."
        ) from error
    return _read(response, base)


def _base(url: str | None) -> str:
    """The server's address without a trailing slash; http where it says no protocol."""
    base = (url or os.environ.get("ERRATA_URL") or DEFAULT_URL).strip().rstrip("/")
    return base if "://" in base else f"http://{base}"


def _is_here(base: str) -> bool:
    """Whether it is this machine's own address."""
    try:
        host = httpx.URL(base).host
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except (httpx.InvalidURL, ValueError):
        return False


def _read(response: httpx.Response, base: str) -> dict[str, Any]:
    """The answer, if it is one of ours: what stands between answers in its own words."""
    try:
        answer = response.json()
    except ValueError:
        answer = None
    error = answer.get("error") if isinstance(answer, dict) else None
    if response.is_error and isinstance(error, dict) and {"message", "hint", "code"} <= set(error):
        raise Refused(error)
    if not isinstance(answer, dict) or not response.is_success:
        raise fail(
            f"{base} answered {response.status_code} {response.reason_phrase}, and not as Errata "
            "does: it is another server, or a proxy stands between (NO_PROXY goes past it)"
        )
    return answer


def refused(error: dict[str, Any]) -> typer.Exit:
    """Say on stderr what the server answered instead; raise what this returns."""
    return fail(f"{error['message']} {error['hint']} ({error['code']})")


def fail(message: str) -> typer.Exit:
    """Say `message` on stderr; raise what this returns."""
    typer.echo(f"errata: {message}", err=True)
    return typer.Exit(1)
