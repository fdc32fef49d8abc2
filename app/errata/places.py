"""Where a server is and by which key it is spoken to; and what httpx says, in our own words.

A server on this machine is addressed past any proxy that the environment names: no proxy could
reach it. Whatever else may stand between is the environment's to say.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from .errors import Misconfigured, NoAnswer

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 300.0
CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """A server's address without a trailing slash, and the key for it."""

    url: str
    api_key: str | None

    @classmethod
    def of(cls, url: str | None, api_key: str | None) -> Place:
        """What is named, else `ERRATA_URL` and `ERRATA_API_KEY`, else the address on this machine.

        An address without a protocol is http.
        """
        base = (url or os.environ.get("ERRATA_URL") or DEFAULT_URL).strip().rstrip("/")
        key = api_key or os.environ.get("ERRATA_API_KEY") or None
        return cls(base if "://" in base else f"http://{base}", key)

    @property
    def is_here(self) -> bool:
        """Whether it is this machine's own address."""
        try:
            host = httpx.URL(self.url).host
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except (httpx.InvalidURL, ValueError):
            return False

    def options(self, timeout_s: float) -> dict[str, Any]:
        """For `httpx.Client` and `httpx.AsyncClient`."""
        return {
            "base_url": self.url,
            "headers": {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {},
            "timeout": httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
            "trust_env": not self.is_here,
        }

    @contextmanager
    def said(self) -> Iterator[None]:
        """Errors of httpx as ours. Raises `NoAnswer` and `Misconfigured`."""
        try:
            yield
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise Misconfigured(
                f"{self.url} is no address ({error}); one is like {DEFAULT_URL}"
            ) from error
        except httpx.HTTPError as error:
            not_sent = isinstance(
                error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout
            )
            raise NoAnswer(
                f"no answer from {self.url}: {str(error) or type(error).__name__}. "
                "Is `errata serve` running?",
                sent=not not_sent,
            ) from error
        except UnicodeEncodeError as error:
            raise Misconfigured("ERRATA_API_KEY holds characters that no key has") from error
        except (ImportError, ValueError) as error:  # a proxy that httpx has no package for
            raise Misconfigured(
                f"the proxy that the environment names cannot be used: {error} "
                "Name the server in NO_PROXY, or unset ALL_PROXY, HTTP_PROXY and HTTPS_PROXY."
            ) from error
