"""What `model` names: the model with its edits, without them, or as of a version.

NAME        with the newest edits
NAME@base   without any
NAME@17     with those of version 17
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.answering import Terms
from app.errors import InvalidField, ModelNotFound
from app.openai.fields import ErrataFields
from app.service import EditingService

_BASE = "base"
_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True)
class ModelName:
    """`id` as it was given; at most one of the others is set."""

    id: str
    is_base: bool = False
    version: int | None = None

    @classmethod
    def parse(cls, given: str, service: EditingService) -> ModelName:
        """Raises `ModelNotFound`, and `VersionNotFound` where the version is still to come."""
        if given == service.model_name:
            return cls(given)
        name, _, suffix = given.rpartition("@")
        if name == service.model_name and suffix == _BASE:
            return cls(given, is_base=True)
        is_number = suffix.isascii() and suffix.isdigit() and len(suffix) <= _MAX_DIGITS
        if name == service.model_name and is_number:
            version = int(suffix)
            service.history.require_version(version, param="model")
            return cls(given, version=version)
        raise ModelNotFound(
            f"There is no model {given!r}; this server serves {service.model_name!r}.",
            param="model",
        )

    def terms(self, errata: ErrataFields | None) -> Terms:
        """By which edits an answer is given. Raises where name and fields contradict."""
        asked = errata or ErrataFields()
        if self.is_base and asked.edits == "on":
            raise _contradiction(self.id, 'errata.edits "on"')
        if self.version is not None and asked.at_version not in (None, self.version):
            raise _contradiction(self.id, f"errata.at_version {asked.at_version}")
        return Terms(
            has_edits=not self.is_base and asked.edits != "off",
            at_version=asked.at_version if self.version is None else self.version,
            min_version=asked.min_version,
            explain=asked.explain,
        )

    def view(self, service: EditingService) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "model",
            "created": service.created,
            "owned_by": "errata",
            "max_model_len": service.engine.words.max_positions,
        }


def listed(service: EditingService) -> list[ModelName]:
    """Those that are listed; versions are too many."""
    name = service.model_name
    return [ModelName(name), ModelName(f"{name}@{_BASE}", is_base=True)]


def _contradiction(name: str, field: str) -> InvalidField:
    return InvalidField(f"The model {name!r} and {field} contradict each other.", param="errata")
