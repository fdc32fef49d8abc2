"""Who may come in: the key of a request, what its route asks for, how often it may be used.

It stands before anything is read of a body, so that a caller without a key costs nothing.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app.access.keyring import LOCAL, Identity, Keyring
from app.access.scopes import allows, needed
from app.errors import InsufficientScope, InvalidApiKey, ServiceError
from app.handlers import error_response, request_id_of


class KeyGuard:
    """Answers 401 and 403 itself; who was let in lies in the request's state as `identity`."""

    def __init__(self, app: ASGIApp, *, keyring: Keyring) -> None:
        self._app = app
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            identity = await self._let_in(scope)
        except ServiceError as refusal:
            response = error_response(refusal, request_id_of(scope))
            if isinstance(refusal, InvalidApiKey):
                response.headers["WWW-Authenticate"] = "Bearer"
            await response(scope, receive, send)
            return
        scope["state"]["identity"] = identity
        await self._app(scope, receive, send)

    async def _let_in(self, scope: Scope) -> Identity:
        need = needed(scope["method"], scope["path"])
        if need == "open" or self._keyring.is_open:
            return LOCAL
        identity = await self._keyring.identify(_token(Headers(scope=scope)))
        if identity is None:
            raise InvalidApiKey("This is not a key of this server.", param="Authorization")
        scope["state"]["log"]["key"] = identity.label
        if need is None and _has_route(scope):
            raise InsufficientScope("This path is closed.", hint="No key opens it.")
        if need is not None and not allows(identity.scope, need):
            raise InsufficientScope(
                f"This asks for a key with the scope {need}; yours has {identity.scope}."
            )
        self._keyring.allowances.take_request(identity.key_id, identity.requests_per_minute)
        return identity


def _has_route(scope: Scope) -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in scope["app"].routes)


def _token(headers: Headers) -> str:
    """Raises `InvalidApiKey` where there is none, or more than one."""
    given = headers.getlist("authorization")
    kind, _, token = (given[0] if len(given) == 1 else "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise InvalidApiKey("This server asks for a key.", param="Authorization")
    return token.strip()
