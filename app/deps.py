"""What routes ask for: the service, who calls, a strictly read body, a strictly read query.

None of it may wait for a thread: what is no coroutine, the framework runs in a pool that slow
requests can fill, and probes need these too.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from app.access.keyring import Identity
from app.errors import (
    BadRequest,
    ContentTypeUnsupported,
    InvalidField,
    InvalidJson,
    MissingField,
    UnknownField,
)
from app.handlers import request_id_of
from app.history import Caller
from app.runtime import Runtime
from app.service import EditingService
from app.strict_json import parse

Model = TypeVar("Model", bound=BaseModel)

MAX_KEY = 255

_MAX_MISTAKES = 20
"""Unknown fields that are looked at: the first one is named, and a body may have thousands."""

_LARGE_BODY = 64 * 1024


async def runtime_of(request: Request) -> Runtime:
    return cast(Runtime, request.app.state.runtime)


CurrentRuntime = Annotated[Runtime, Depends(runtime_of)]


async def service_of(request: Request) -> EditingService:
    """The service, once it is ready and until it drains."""
    return (await runtime_of(request)).service


async def caller_of(request: Request) -> Caller:
    identity: Identity = request.state.identity
    return Caller(
        request_id_of(request.scope), identity.label, identity.key_id, identity.scope == "admin"
    )


async def allowance_of(request: Request, runtime: CurrentRuntime) -> Callable[[int], None]:
    """What counts edits against the caller's key; it raises `RateLimited`."""
    identity: Identity = request.state.identity
    allowances = runtime.keyring.allowances

    def take(count: int) -> None:
        allowances.take_edits(identity.key_id, identity.edits_per_day, count)

    return take


CurrentService = Annotated[EditingService, Depends(service_of)]
CurrentCaller = Annotated[Caller, Depends(caller_of)]
CurrentAllowance = Annotated[Callable[[int], None], Depends(allowance_of)]


def idempotency_key(key: str | None, *, param: str) -> str | None:
    """`key` if it may be one. `param` is where it came from."""
    if key is not None and not (1 <= len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise InvalidField(
            f"{param} must be 1 to {MAX_KEY} printable ASCII characters.", param=param
        )
    return key


def body_of(model: type[Model], *, optional: bool = False) -> Callable[[Request], Awaitable[Model]]:
    """A dependency that reads the body as `model`; an absent one is `{}` if it is `optional`."""

    async def read(request: Request) -> Model:
        _check_content_type(request)
        body = await request.body()
        if not body and optional:
            return validate(model, {})
        if not body:
            raise InvalidJson("The body is empty.")
        if len(body) < _LARGE_BODY:
            return validate(model, parse(body))
        async with (await runtime_of(request)).parsing:
            return validate(model, await asyncio.to_thread(parse, body))

    return read


def query_of(model: type[Model]) -> Callable[[Request], Awaitable[Model]]:
    """A dependency that reads the query string as `model`, repeats and unknown names refused."""

    async def read(request: Request) -> Model:
        pairs = request.query_params.multi_items()
        for name, count in Counter(name for name, _ in pairs).items():
            if count > 1:
                raise InvalidField(f"{name} is given more than once.", param=name)
        return validate(model, dict(pairs))

    return read


def described(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """`openapi_extra` for a body that FastAPI does not read itself."""
    schema = model.model_json_schema()
    whole = _inlined(schema, schema.pop("$defs", {}))
    return {
        "requestBody": {"content": {"application/json": {"schema": whole}}, "required": required}
    }


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """The schema with what it refers to in place: its own definitions are no part of OpenAPI's."""
    if isinstance(schema, list):
        return [_inlined(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _inlined(value, definitions) for name, value in schema.items()}


def described_query(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` for a query that FastAPI does not read itself."""
    fields = model.model_json_schema()["properties"]
    return {
        "parameters": [{"name": name, "in": "query", "schema": fields[name]} for name in fields]
    }


def validate(model: type[Model], value: Any) -> Model:
    """`value` as a `model`. Raises the first mistake: missing, then wrong, then unknown fields."""
    if not isinstance(value, dict):
        raise InvalidField("The body must be a JSON object.")
    known = model.model_fields  # not asked for anew with each name
    unknown = [name for name in value if name not in known]
    for name in unknown[_MAX_MISTAKES:]:
        del value[name]
    try:
        return model.model_validate(value)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        raise min(map(_mistake, mistakes), key=_rank) from error


def _mistake(item: Any) -> BadRequest:
    param = str(item["loc"][0])
    if item["type"] == "missing":
        return MissingField(f"{param} is missing.", param=param)
    if item["type"] == "extra_forbidden":
        return UnknownField(f"There is no field {param!r} here.", param=param)
    message = item["msg"].removeprefix("Value error, ")
    return InvalidField(f"{param}: {message}.", param=param)


def _rank(mistake: BadRequest) -> int:
    return [MissingField, InvalidField, UnknownField].index(type(mistake))


def _check_content_type(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise ContentTypeUnsupported(
            f"A body with Content-Encoding {encoding} is not read.", param="Content-Encoding"
        )
    declared = request.headers.get("content-type")
    if declared is None:
        return
    kind = declared.partition(";")[0].strip().lower()
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        raise ContentTypeUnsupported(f"A body of type {kind} is not read.", param="Content-Type")
