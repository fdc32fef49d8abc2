"""A webhook's receiver: keeps what it is sent, and answers what a test wants it to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Delivery:
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.body)
        return read

    def is_signed_by(self, secret: str) -> bool:
        signed = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
        expected = f"v1,{base64.b64encode(digest).decode()}"
        return hmac.compare_digest(expected, self.headers["webhook-signature"])


class Receiver:
    """Answers `statuses` one after another, then 204. `taken` are those that got a 2xx."""

    def __init__(self, *, port: int = 0) -> None:
        self.statuses: list[int] = []
        self.all: list[Delivery] = []
        self.taken: list[Delivery] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                delivery = Delivery({k.lower(): v for k, v in self.headers.items()}, body)
                receiver.all.append(delivery)
                status = receiver.statuses.pop(0) if receiver.statuses else 204
                if status < 300:
                    receiver.taken.append(delivery)
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook?token=hidden"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def kinds(self) -> list[str]:
        return [delivery.message["type"] for delivery in list(self.taken)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
