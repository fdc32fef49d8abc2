"""Signatures of deliveries, as Standard Webhooks has them (https://www.standardwebhooks.com).

HMAC-SHA256 over id, timestamp and body. Whoever checks it and the timestamp knows that this server
sent the body, and that it is not an old one that somebody sends again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """The key: what follows `whsec_` in base64, or any other text as it is.

    Raises `ValueError` where that is no base64.
    """
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"what follows {PREFIX} must be base64") from error


def headers(key: bytes, *, message_id: str, timestamp: int, body: bytes) -> Mapping[str, str]:
    """What goes with a delivery. `timestamp` in seconds since 1970, of this attempt."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
