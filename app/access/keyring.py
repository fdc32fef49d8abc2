"""The keys of one server: whose a token is, and making and revoking keys.

The server that holds the database is its only writer, so what is in memory is what holds.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import get_args

from app.access import tokens
from app.access.limits import Allowances
from app.access.scopes import KeyScope, allows
from app.errors import InvalidField, KeyLabelTaken, KeyNotFound, LastAdminKey
from app.store.key_log import KeyLog, StoredKey

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls. `key_id` is empty where no key stands behind it."""

    label: str
    scope: KeyScope
    key_id: str = ""
    requests_per_minute: int | None = None
    edits_per_day: int | None = None


LOCAL = Identity("local", "admin")
"""Everybody, while a server has no keys: it is reached from its own machine only."""

FIRST = Identity("admin", "admin", "admin")
"""Whoever has the key of `ERRATA_ADMIN_KEY`."""

_SCOPES: dict[str, KeyScope] = {scope: scope for scope in get_args(KeyScope)}
_RESERVED = frozenset({LOCAL.label, FIRST.label})


class Keyring:
    """Lives on the event loop's thread."""

    def __init__(self, log: KeyLog, *, admin_key: str | None) -> None:
        """Reads all keys: blocking. `admin_key` is a first key that lies in the settings."""
        self.allowances = Allowances()
        self._log = log
        self._first = None if admin_key is None else tokens.quick_digest(admin_key)
        self._pepper = log.pepper() or tokens.new_pepper()
        self._keys = {key.id: key for key in log.all()}
        self._valid = {key.id for key in self._keys.values() if key.revoked_at is None}
        self._checked: dict[str, bytes] = {}
        self._changing = asyncio.Lock()
        self._checking = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether there is no key at all, so that everybody is `LOCAL`."""
        return self._first is None and not self._valid

    async def identify(self, token: str) -> Identity | None:
        """Whose token this is; None if nobody's, or a revoked key's."""
        digest = tokens.quick_digest(token)
        is_first = hmac.compare_digest(self._first or bytes(len(digest)), digest)
        key_id = tokens.id_of(token, self._pepper)
        if self._first is not None and is_first:
            return FIRST
        if key_id not in self._valid or not await self._is_its(key_id, token, digest):
            return None
        # it may have been revoked meanwhile
        return _identity(self._keys[key_id]) if key_id in self._valid else None

    async def _is_its(self, key_id: str, token: str, digest: bytes) -> bool:
        """Whether the token is the key's. The slow digest is made once; then a quick one tells."""
        if (known := self._checked.get(key_id)) is not None:
            return hmac.compare_digest(known, digest)
        key = self._keys[key_id]
        async with self._checking:
            slow = await asyncio.to_thread(tokens.slow_digest, token, key.salt)
        if not hmac.compare_digest(slow, key.digest):
            return False
        self._checked[key_id] = digest
        return True

    def all(self) -> list[StoredKey]:
        """Revoked ones too, oldest first."""
        return list(self._keys.values())

    async def create(
        self,
        label: str,
        scope: KeyScope,
        *,
        requests_per_minute: int | None,
        edits_per_day: int | None,
        by: str,
    ) -> tuple[StoredKey, str]:
        """A new key and its token, which is nowhere kept.

        Raises `InvalidField` for a label that may be none and for a first key that could not make
        others, `KeyLabelTaken`, `StoreUnavailable`.
        """
        if not _LABEL.fullmatch(label) or label in _RESERVED:
            raise InvalidField(
                "label must begin with a letter or digit and have at most 64 letters, digits, "
                f"spaces and . _ @ -, and be none of {', '.join(sorted(_RESERVED))}.",
                param="label",
            )
        async with self._changing:
            if any(key.label == label for key in self._keys.values()):
                raise KeyLabelTaken(f"There is, or was, a key {label!r}.", param="label")
            if self.is_open and not allows(scope, "admin"):
                raise InvalidField(
                    "The first key must have the scope admin: with it, keys are asked for.",
                    param="scope",
                    hint="Make a key with the scope admin first, or set ERRATA_ADMIN_KEY.",
                )
            token, key_id = tokens.new_token(self._pepper)
            salt = tokens.new_salt()
            key = StoredKey(
                id=key_id,
                label=label,
                scope=scope,
                requests_per_minute=requests_per_minute,
                edits_per_day=edits_per_day,
                salt=salt,
                digest=await asyncio.to_thread(tokens.slow_digest, token, salt),
                created_at=_now(),
                created_by=by,
            )
            await asyncio.to_thread(self._log.add, key, pepper=self._pepper)
            self._keys[key.id] = key
            self._valid.add(key.id)
            return key, token

    async def revoke(self, key_id: str, *, by: str) -> StoredKey:
        """End a key for good. Idempotent.

        Raises `KeyNotFound`, `StoreUnavailable`, and `LastAdminKey` where nobody could make a key
        any more.
        """
        async with self._changing:
            key = self._keys.get(key_id)
            if key is None:
                raise KeyNotFound(f"There is no key {key_id!r}.", param="id")
            if key.revoked_at is not None:
                return key
            if self._first is None and not self._has_admin_beside(key_id):
                raise LastAdminKey(f"{key.label!r} is the last key with the scope admin.")
            at = _now()
            await asyncio.to_thread(self._log.revoke, key_id, at=at, by=by)
            self._keys[key_id] = key = replace(key, revoked_at=at, revoked_by=by)
            self._valid.discard(key_id)
            return key

    def _has_admin_beside(self, key_id: str) -> bool:
        return any(self._keys[other].scope == "admin" for other in self._valid - {key_id})


def _identity(key: StoredKey) -> Identity:
    """Whatever stands in the row, it gives no more than one of the known scopes."""
    scope = _SCOPES.get(key.scope, "infer")
    return Identity(key.label, scope, key.id, key.requests_per_minute, key.edits_per_day)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
