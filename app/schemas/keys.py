"""API keys on the wire. A token is shown once, when its key is made."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, Field

from app.access.scopes import KeyScope
from app.schemas.base import Request, Text
from app.store.key_log import StoredKey

Limit = Annotated[int, Field(ge=1, le=1_000_000)]


class KeyCreate(Request):
    label: Annotated[Text, Field(min_length=1, max_length=64)]
    scope: KeyScope
    requests_per_minute: Limit | None = None
    edits_per_day: Limit | None = None


class KeyView(BaseModel):
    id: str
    label: str
    scope: str
    requests_per_minute: int | None
    edits_per_day: int | None
    created_at: str
    created_by: str
    revoked_at: str | None
    revoked_by: str | None

    @classmethod
    def of(cls, key: StoredKey) -> Self:
        return cls(**{name: getattr(key, name) for name in KeyView.model_fields})


class KeyMade(KeyView):
    """`token` is what callers send. The server keeps a digest only and cannot show it again."""

    token: str

    @classmethod
    def made(cls, key: StoredKey, token: str) -> KeyMade:
        return cls(**KeyView.of(key).model_dump(), token=token)


class KeyList(BaseModel):
    """All keys of the server, revoked ones too, oldest first."""

    object: str = "list"
    data: list[KeyView]
