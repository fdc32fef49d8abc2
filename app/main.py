"""The application: routes, handlers, middleware and lifespan, put together. No global state."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app.bodies import Bodies, BodyLimit
from app.guard import KeyGuard
from app.handlers import install_handlers
from app.middleware import HostGuard, QueryLimit, RequestContext, SafeInBrowsers
from app.routes import (
    admin,
    attributions,
    edits,
    feedback,
    generate,
    health,
    keys,
    metrics,
    openai,
    pages,
    pictures,
    scope,
    versions,
)
from app.runtime import Runtime
from app.schemas.errors import ErrorBody
from app.settings import ALWAYS_ALLOWED_HOSTS, Settings

logger = logging.getLogger(__name__)


def create_app(settings: Settings, *, runtime: Runtime | None = None) -> FastAPI:
    """An application for one data directory.

    With a `runtime`, the caller loads and closes it (`errata serve` does, to report failures);
    without, the lifespan does, and requests get 503 `starting` until the model is there. Raises
    `StartupError` when the data directory cannot be taken.
    """
    owned = runtime is None
    current = Runtime.open(settings) if runtime is None else runtime

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if not owned:
            yield
            return
        loading = asyncio.ensure_future(current.load())
        loading.add_done_callback(_log_failure)
        yield
        await asyncio.wait({loading})
        await current.close()

    app = FastAPI(
        title="Errata",
        version=importlib.metadata.version("errata"),
        summary="A vision-language model that can be corrected while it runs.",
        lifespan=lifespan,
        docs_url=None,  # a page of our own: `app/routes/pages.py`
        redoc_url=None,
        redirect_slashes=False,
        responses={"default": {"model": ErrorBody, "description": "Every error has this shape."}},
    )
    app.state.runtime = current
    for module in (
        pages,
        generate,
        openai,
        attributions,
        edits,
        feedback,
        pictures,
        scope,
        admin,
        keys,
        versions,
        health,
        metrics,
    ):
        app.include_router(module.router)
    app.mount("/console", pages.ConsoleFiles(), name="console")
    install_handlers(app)
    bodies = Bodies(limit=settings.body_memory_mib * 2**20, timeout_s=settings.body_timeout_s)
    current.when_draining(bodies.arriving.end)
    app.add_middleware(QueryLimit)
    app.add_middleware(BodyLimit, bodies=bodies)
    app.add_middleware(KeyGuard, keyring=current.keyring)
    app.add_middleware(HostGuard, allowed=_allowed_hosts(settings), keyring=current.keyring)
    app.add_middleware(
        RequestContext,
        metrics=current.metrics,
        tracing=current.tracing,
        on_begin=current.request_began,
        on_end=current.request_ended,
        is_ending=lambda: current.state in ("draining", "closed"),
    )
    app.add_middleware(SafeInBrowsers)
    return app


def _allowed_hosts(settings: Settings) -> frozenset[str]:
    return frozenset({*ALWAYS_ALLOWED_HOSTS, settings.host.lower(), *settings.allowed_hosts})


def _log_failure(loading: asyncio.Future[None]) -> None:
    if not loading.cancelled() and (error := loading.exception()) is not None:
        logger.error("the server could not start", exc_info=error)
