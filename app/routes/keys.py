"""Make, list and end API keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from app.deps import CurrentCaller, CurrentRuntime, body_of, described, query_of
from app.schemas.base import NoBody, NoQuery
from app.schemas.keys import KeyCreate, KeyList, KeyMade, KeyView

router = APIRouter(prefix="/admin/keys", tags=["keys"], dependencies=[Depends(query_of(NoQuery))])


@router.post("", status_code=201, summary="Make a key", openapi_extra=described(KeyCreate))
async def create_key(
    runtime: CurrentRuntime,
    caller: CurrentCaller,
    body: Annotated[KeyCreate, Depends(body_of(KeyCreate))],
) -> KeyMade:
    """From the first key on, every caller needs one. Only this answer ever holds its token."""
    key, token = await runtime.keyring.create(
        body.label,
        body.scope,
        requests_per_minute=body.requests_per_minute,
        edits_per_day=body.edits_per_day,
        by=caller.actor,
    )
    return KeyMade.made(key, token)


@router.get("", summary="List keys")
async def list_keys(runtime: CurrentRuntime) -> KeyList:
    """Oldest first, revoked ones too: their labels are in the audit trail."""
    return KeyList(data=[KeyView.of(key) for key in runtime.keyring.all()])


@router.post(
    "/{id}/revoke",
    summary="End a key",
    openapi_extra=described(NoBody, required=False),
    dependencies=[Depends(body_of(NoBody, optional=True))],
)
async def revoke_key(
    runtime: CurrentRuntime,
    caller: CurrentCaller,
    id: str,  # noqa: A002
) -> KeyView:
    """At once and for good. Idempotent."""
    return KeyView.of(await runtime.keyring.revoke(id, by=caller.actor))
