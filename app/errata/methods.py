"""From a function that says what to send to a method that sends it, with the same parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


def described_by(build: Callable[..., Any], method: Method) -> Method:
    """The method, with name, docstring and parameters of `build`."""
    method.__name__ = build.__name__
    method.__doc__ = build.__doc__
    signature = inspect.signature(build)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    parameters: Iterable[inspect.Parameter] = [itself, *signature.parameters.values()]
    whole = signature.replace(
        parameters=list(parameters), return_annotation=inspect.Signature.empty
    )
    method.__signature__ = whole  # type: ignore[attr-defined]
    return method
