"""One JSON line per log record, on stderr. Never a prompt, a target or a picture.

Levels: a request is `info`, a refused one too; what needs an operator is `error`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.types import Scope

_requests = logging.getLogger("errata.requests")

QUIET_PATHS = frozenset({"/health/live", "/health/ready"})


class JsonFormatter(logging.Formatter):
    """`at`, `level`, `logger`, `message`, then whatever the record carries under `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure_logging(level: str) -> None:
    """Send everything through one handler. Called by `errata serve`, never at import."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("alembic", "faiss", "httpx", "PIL", "uvicorn"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def access_log(
    scope: Scope, request_id: str, status: int, seconds: float, more: Mapping[str, Any]
) -> None:
    """One line for one request. `more` is what the route noted: version, edits, token counts."""
    level = logging.DEBUG if scope["path"] in QUIET_PATHS else logging.INFO
    route = scope.get("route")
    fields = {
        "request_id": request_id,
        "method": scope["method"],
        "route": getattr(route, "path", None),
        "status": status,
        "ms": round(1000 * seconds, 1),
        **more,
    }
    _requests.log(level, "request", extra={"fields": fields})
