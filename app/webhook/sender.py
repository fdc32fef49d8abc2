"""Sends what waits in the outbox, one message after another, until each is taken.

A receiver that does not answer, or answers 408, 425, 429 or 5xx, is tried again for as long as it
takes, so that order holds and nothing is lost. One that refuses a message by another status is
tried a few times; then that message is given up and counted.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from app import signing
from app.errors import StoreDamaged, StoreUnavailable
from app.history import now
from app.webhook.outbox import Message, Outbox

logger = logging.getLogger(__name__)

POLL_S = 0.5
"""How often an empty outbox is looked into."""

TIMEOUT_S = 10.0
"""How long a receiver may take to answer."""

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 300.0
"""Between two attempts: doubled each time, and half of it by chance."""

ATTEMPTS = 5
"""At a message that the receiver refuses."""

_TRY_AGAIN = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class WebhookState:
    """How the deliveries stand. `failing`: why the last attempt came to nothing, None if it did."""

    host: str
    version: int
    behind: int
    delivered_at: str | None
    failing: str | None


class WebhookSender:
    """One per process; lives on the event loop's thread. `on_attempt` is called with what came of
    each: delivered, retried or given_up."""

    def __init__(
        self, url: str, key: bytes, outbox: Outbox, *, on_attempt: Callable[[str], None]
    ) -> None:
        self.outbox = outbox
        self._url = url
        self._key = key
        self._on_attempt = on_attempt
        self._delivered_at: str | None = None
        self._failing: str | None = None

    @property
    def state(self) -> WebhookState:
        """The URL may hold a secret, so only its host is shown."""
        host = urlsplit(self._url).hostname or ""
        outbox = self.outbox
        return WebhookState(host, outbox.version, outbox.behind, self._delivered_at, self._failing)

    async def run(self) -> None:
        """Until cancelled. A message under way then is sent again by the next process."""
        # No proxy of the environment: it would see what is sent. No redirect: it would be sent to
        # somebody else.
        async with httpx.AsyncClient(
            trust_env=False,
            verify=httpx.create_ssl_context(),
            follow_redirects=False,
            timeout=TIMEOUT_S,
        ) as client:
            while True:
                try:
                    message = await self.outbox.next()
                    if message is not None:
                        await self._deliver(client, message)
                        await self.outbox.done(message)
                        continue
                except (StoreUnavailable, StoreDamaged) as error:
                    logger.warning("the webhook waits for the database: %s", error)
                await asyncio.sleep(POLL_S)

    async def _deliver(self, client: httpx.AsyncClient, message: Message) -> None:
        """Return once it is taken, or given up."""
        attempt = refusals = 0
        while True:
            failing, is_refusal = await self._attempt(client, message)
            refusals += is_refusal
            if failing is None:
                self._failing, self._delivered_at = None, now()
                self._on_attempt("delivered")
                return
            if self._failing is None:
                logger.warning("the webhook's receiver: %s", failing)
            self._failing = failing
            if refusals >= ATTEMPTS:
                logger.error("the webhook gives %s up: %s", message.id, failing)
                self._on_attempt("given_up")
                return
            self._on_attempt("retried")
            longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt)
            attempt = min(attempt + 1, 16)
            await asyncio.sleep(longest * random.uniform(0.5, 1.0))

    async def _attempt(
        self, client: httpx.AsyncClient, message: Message
    ) -> tuple[str | None, bool]:
        """Why it was not taken, None if it was; and whether that is the receiver's last word."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "errata-webhook/1",
            **signing.headers(
                self._key, message_id=message.id, timestamp=int(time.time()), body=message.body
            ),
        }
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                # What it answers is not read: it may never end.
                client.stream("POST", self._url, content=message.body, headers=headers) as answer,
            ):
                status = answer.status_code
        except TimeoutError:
            return f"no answer in {TIMEOUT_S:g} s", False
        except httpx.HTTPError as error:
            return f"not reached: {type(error).__name__}", False
        if 200 <= status < 300:
            return None, False
        return f"answered {status}", not (status in _TRY_AGAIN or status >= 500)
