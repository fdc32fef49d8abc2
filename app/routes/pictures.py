"""See what an edit is about. A picture never changes, so browsers may keep it."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from app.deps import CurrentService, query_of
from app.schemas.base import NoQuery

router = APIRouter(tags=["edits"])


@router.get(
    "/edits/{id}/image",
    response_class=Response,
    responses={
        200: {"content": {"image/png": {}}},
        304: {"description": "It is the one of `If-None-Match`."},
    },
    summary="The picture of an edit",
    dependencies=[Depends(query_of(NoQuery))],
)
async def image(request: Request, service: CurrentService, id: str) -> Response:  # noqa: A002
    """The pixels that the edit was made of, as PNG."""
    digest = await service.pictures.digest(id)
    headers = _kept_as(f"{digest}")
    if _is_kept(request, headers):
        return Response(status_code=304, headers=headers)
    return Response(await service.pictures.png(id), media_type="image/png", headers=headers)


@router.get(
    "/edits/{id}/thumbnail",
    response_class=Response,
    responses={
        200: {"content": {"image/webp": {}}},
        304: {"description": "It is the one of `If-None-Match`."},
    },
    summary="The picture of an edit, small",
    dependencies=[Depends(query_of(NoQuery))],
)
async def thumbnail(request: Request, service: CurrentService, id: str) -> Response:  # noqa: A002
    """At most 192 pixels wide and high, as WebP."""
    digest = await service.pictures.digest(id)
    headers = _kept_as(f"{digest}-small")
    if _is_kept(request, headers):
        return Response(status_code=304, headers=headers)
    data = await service.pictures.thumbnail(id, digest)
    return Response(data, media_type="image/webp", headers=headers)


def _kept_as(tag: str) -> dict[str, str]:
    """`private`: what lies between a caller and the server must not give it to others."""
    return {"ETag": f'"{tag}"', "Cache-Control": "private, max-age=31536000, immutable"}


def _is_kept(request: Request, headers: dict[str, str]) -> bool:
    known = request.headers.get("if-none-match", "").split(",")
    return any(tag.strip().removeprefix("W/") in ("*", headers["ETag"]) for tag in known)
