"""What can go wrong for a client, drawn as a tree: one class for each family of errors.

ErrataError
├── Refused                 the server's own error: status, code, message, hint, request_id, ...
│   ├── BadRequest          400, 405, 408, 413, 415: the request has to change
│   ├── InvalidApiKey       401
│   ├── Forbidden           403
│   ├── NotFound            404
│   ├── Conflict            409
│   ├── VersionMismatch     412
│   ├── Unprocessable       422
│   │   ├── EditNotEffective    before, after, damaged
│   │   └── EditConflicts       conflicts_with
│   ├── TooMany             429
│   └── ServerFault         5xx
│       └── Unavailable     503
├── EditCancelled           somebody called the edit off while it was waited for
├── NoAnswer                nothing came back, or it broke off
├── NotErrata               what came back is no answer of Errata's
├── Misconfigured           an address, a key or a proxy that cannot be used
└── BadPicture              what was given is no picture that can be sent
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OWN = {"message", "type", "param", "code", "hint", "retryable", "request_id"}


class ErrataError(Exception):
    """The root of the tree."""


class Refused(ErrataError):
    """The server answered with an error.

    `code` never changes its meaning; `hint` says what to do. `retry_after` is in seconds, None
    where the server did not say. `details` has what this error says beside its common fields.
    """

    def __init__(
        self, fields: Mapping[str, Any], *, status: int, retry_after: float | None = None
    ) -> None:
        self.fields = dict(fields)
        self.status = status
        self.retry_after = retry_after
        self.code = str(fields.get("code", "unknown"))
        self.message = str(fields.get("message", "The server gave no reason."))
        self.hint = str(fields.get("hint", ""))
        self.kind = str(fields.get("type", ""))
        self.param: str | None = fields.get("param")
        self.request_id = str(fields.get("request_id", ""))
        self.retryable = bool(fields.get("retryable", False))
        self.details = {name: value for name, value in fields.items() if name not in _OWN}
        super().__init__(f"{self.message} {self.hint} ({self.code})")

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (type(self), self.fields, self.status, self.retry_after)


class BadRequest(Refused):
    """The request cannot be understood, or asks for too much."""


class InvalidApiKey(Refused):
    """No key, or none of this server, or a revoked one."""


class Forbidden(Refused):
    """The key may not do this, or the server is not addressed under a name of its own."""


class NotFound(Refused):
    """What the request names is not there."""


class Conflict(Refused):
    """It does not fit how things stand."""


class VersionMismatch(Refused):
    """Somebody else made a change in between."""


class Unprocessable(Refused):
    """Understood, and impossible."""


class EditNotEffective(Unprocessable):
    """The edit was tried and did not take, or changed other answers too."""

    @property
    def before(self) -> str | None:
        before: str | None = self.details.get("before")
        return before

    @property
    def after(self) -> str | None:
        after: str | None = self.details.get("after")
        return after

    @property
    def damaged(self) -> list[dict[str, str]]:
        return list(self.details.get("damaged", []))


class EditConflicts(Unprocessable):
    """The edit would change what earlier edits answer."""

    @property
    def conflicts_with(self) -> list[str]:
        """Ids of those edits."""
        return list(self.details.get("conflicts_with", []))


class TooMany(Refused):
    """Too many requests, or the limits of the key are spent."""


class ServerFault(Refused):
    """A fault of the server. Its log has more, under the `request_id`."""


class Unavailable(ServerFault):
    """Not now: it starts, it stops, or its database does not answer."""


class EditCancelled(ErrataError):
    """The edit that was waited for was called off."""


class NoAnswer(ErrataError):
    """Nothing listens there, or the connection broke. `sent` says if the request may have arrived.

    What was sent may have been done. An edit is made once all the same: send it again with the
    same idempotency key.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class NotErrata(ErrataError):
    """It is another server, or a proxy stands between."""

    def __init__(self, message: str, *, status: int, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Misconfigured(ErrataError):
    """No request was sent."""


class BadPicture(ErrataError):
    """No request was sent."""


_BY_CODE: dict[str, type[Refused]] = {
    "edit_not_effective": EditNotEffective,
    "edit_conflicts": EditConflicts,
}
_BY_STATUS: dict[int, type[Refused]] = {
    401: InvalidApiKey,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: VersionMismatch,
    422: Unprocessable,
    429: TooMany,
    503: Unavailable,
}


def refusal(fields: Mapping[str, Any], *, status: int, retry_after: float | None = None) -> Refused:
    """The exception for the `error` object of an answer."""
    general = ServerFault if status >= 500 else BadRequest
    kind = _BY_CODE.get(str(fields.get("code")), _BY_STATUS.get(status, general))
    return kind(fields, status=status, retry_after=retry_after)


def _remade(
    kind: type[Refused], fields: Mapping[str, Any], status: int, retry_after: float | None
) -> Refused:
    return kind(fields, status=status, retry_after=retry_after)
