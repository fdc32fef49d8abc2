"""The official client against a server of the tests, and messages as it takes them."""

from __future__ import annotations

from typing import Any

import httpx2
import openai

from tests.support.server import DEADLINE_S, LiveServer


def client_of(server: LiveServer, **more: Any) -> openai.OpenAI:
    """It never tries twice unless told to, so that what a test asks is asked once."""
    options: dict[str, Any] = {"api_key": "none", "max_retries": 0, "timeout": DEADLINE_S} | more
    return openai.OpenAI(
        base_url=f"{server.url}/v1", http_client=httpx2.Client(trust_env=False), **options
    )


def message(text: str, *images: str, role: str = "user") -> Any:
    """Text, then pictures: on their way they are put in front."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    parts += [{"type": "image_url", "image_url": {"url": url}} for url in images]
    return {"role": role, "content": parts}
