"""What a key may do, and what each route asks for. A route that is not listed is denied to all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Literal, get_args

from starlette.routing import compile_path

KeyScope = Literal["infer", "edit", "admin"]
"""Each one includes those before it."""

Need = Literal["open", "infer", "edit", "admin"]
"""`open`: no key is asked for."""

_RANK: Mapping[KeyScope, int] = {name: rank for rank, name in enumerate(get_args(KeyScope))}

ROUTES: Mapping[tuple[str, str], Need] = {
    ("GET", "/"): "open",
    ("GET", "/docs"): "open",
    ("GET", "/console/{file:path}"): "open",
    ("GET", "/openapi.json"): "open",
    ("GET", "/health/live"): "open",
    ("GET", "/health/ready"): "open",
    ("GET", "/metrics"): "open",
    ("GET", "/health/load"): "infer",
    ("GET", "/versions"): "infer",
    ("POST", "/generate"): "infer",
    ("POST", "/attributions"): "infer",
    ("GET", "/v1/models"): "infer",
    ("GET", "/v1/models/{id:path}"): "infer",
    ("POST", "/v1/chat/completions"): "infer",
    ("POST", "/v1/responses"): "infer",
    ("POST", "/v1/completions"): "infer",
    ("POST", "/feedback"): "infer",
    ("GET", "/feedback"): "edit",
    ("POST", "/feedback/import"): "edit",
    ("GET", "/feedback/{id}"): "edit",
    ("GET", "/feedback/{id}/image"): "edit",
    ("GET", "/feedback/{id}/thumbnail"): "edit",
    ("POST", "/feedback/{id}/resolve"): "edit",
    ("GET", "/edits"): "infer",
    ("GET", "/edits/{id}"): "infer",
    ("GET", "/edits/{id}/image"): "infer",
    ("GET", "/edits/{id}/thumbnail"): "infer",
    ("POST", "/scope/preview"): "infer",
    ("POST", "/edits"): "edit",
    ("POST", "/edits/batch"): "edit",
    ("POST", "/edits/{id}/cancel"): "edit",
    ("POST", "/edits/{id}/scope"): "edit",
    ("POST", "/admin/edits/{id}/rollback"): "admin",
    ("POST", "/admin/edits/{id}/reinstate"): "admin",
    ("POST", "/admin/rollback"): "admin",
    ("GET", "/admin/events"): "admin",
    ("GET", "/admin/events/{version}/changes"): "admin",
    ("GET", "/admin/keys"): "admin",
    ("POST", "/admin/keys"): "admin",
    ("POST", "/admin/keys/{id}/revoke"): "admin",
}
"""Method and path template -> what it asks for."""


def needed(method: str, path: str) -> Need | None:
    """What a request asks for; None where nothing is listed."""
    return next(
        (
            need
            for (listed, template), need in ROUTES.items()
            if listed == method and _pattern(template).fullmatch(path)
        ),
        None,
    )


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return compile_path(template)[0]


def allows(held: KeyScope, needed: KeyScope) -> bool:
    """Whether a key with scope `held` may do what asks for `needed`."""
    return _RANK[held] >= _RANK[needed]
