"""Tokens that callers send: how one is made, and how it is told from anything else.

    ek_<id>_<secret>_<tag>

`id` names the row, `secret` is 256 random bits, `tag` is a keyed digest of both. Only a token that
this store made has the right tag, so a wrong one is refused for the price of one HMAC, whether its
id exists or not: guesses cost the server nothing, and their timing tells nothing. Of the secret
the store keeps an scrypt digest only (RFC 7914; N 2^14, r 8, p 1: 16 MiB and some 50 ms).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

_TOKEN = re.compile(r"ek_([0-9a-f]{12})_([0-9a-f]{64})_([0-9a-f]{32})")
_TAG_CHARS = 32


def new_pepper() -> bytes:
    """The key of all tags of one store. 32 bytes."""
    return secrets.token_bytes(32)


def new_token(pepper: bytes) -> tuple[str, str]:
    """A token and its id."""
    key_id = secrets.token_hex(6)
    body = f"{key_id}_{secrets.token_hex(32)}"
    return f"ek_{body}_{_tag(body, pepper)}", key_id


def id_of(token: str, pepper: bytes) -> str | None:
    """The id of a token that was made with this pepper; None for anything else."""
    match = _TOKEN.fullmatch(token)
    key_id, secret, tag = match.groups() if match else ("", "", "0" * _TAG_CHARS)
    is_ours = hmac.compare_digest(tag, _tag(f"{key_id}_{secret}", pepper))
    return key_id if is_ours else None


def new_salt() -> bytes:
    """16 bytes."""
    return secrets.token_bytes(16)


def slow_digest(token: str, salt: bytes) -> bytes:
    """What is stored of a token. 32 bytes. Blocking: belongs on a worker thread."""
    return hashlib.scrypt(token.encode(), salt=salt, n=2**14, r=8, p=1, dklen=32)


def quick_digest(token: str) -> bytes:
    """What is kept in memory of a token that was checked once. 32 bytes."""
    return hashlib.sha256(token.encode()).digest()


def _tag(body: str, pepper: bytes) -> str:
    return hmac.new(pepper, body.encode(), "sha256").hexdigest()[:_TAG_CHARS]
