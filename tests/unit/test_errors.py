from __future__ import annotations

import pickle

import pytest

from editing_core import errors
from editing_core.errors import ArtifactCorrupt, ContextTooLong, EditingError, RequestError

PARAMS = {"image", "messages", "prompt", "response_format", "target", "token"}


def every_error() -> list[type[EditingError]]:
    found: list[type[EditingError]] = [EditingError]
    for error in found:
        found.extend(error.__subclasses__())
    return [error for error in found if error.__module__ == errors.__name__]


@pytest.mark.parametrize("error", every_error())
def test_every_error_says_what_to_do(error: type[EditingError]) -> None:
    raised = error("what happened")
    assert raised.message == str(raised) == "what happened"
    assert raised.hint
    assert error("what happened", hint="do this").hint == "do this"


def test_every_error_is_in_the_drawing_with_a_code_of_its_own() -> None:
    codes = [error.code for error in every_error()]
    assert len(set(codes)) == len(codes)
    for error in every_error():
        assert error.__name__ in (errors.__doc__ or "")


def test_request_errors_name_the_field() -> None:
    for error in every_error():
        if issubclass(error, RequestError) and error is not RequestError:
            assert error.param in PARAMS


def test_errors_cross_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ContextTooLong("too long", hint="cut it")))  # noqa: S301
    assert (error.message, error.hint, error.param) == ("too long", "cut it", "prompt")
    corrupt = pickle.loads(pickle.dumps(ArtifactCorrupt("broken", field="up")))  # noqa: S301
    assert (corrupt.message, corrupt.field) == ("broken", "up")
