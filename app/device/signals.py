"""What server and engine say to each other beside requests and replies."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from app.device.facts import ModelFacts
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Load:
    """First of all: the model to load, and from which level on the log is wanted."""

    settings: Settings
    log_level: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Last of all: end what was begun, and then the process."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is there."""

    facts: ModelFacts


@dataclass(frozen=True, slots=True, eq=False)
class NotLoaded:
    """Why it is not; the process ends."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Logged:
    """A line of the engine's log, which belongs into the server's."""

    name: str
    level: int
    text: str
    created: float
    fields: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, record: logging.LogRecord) -> Self:
        fields = dict(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[1] is not None:
            fields["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        return cls(record.name, record.levelno, record.getMessage(), record.created, fields)

    def write(self, **more: Any) -> None:
        """As if it had been logged here."""
        logger = logging.getLogger(self.name)
        if not logger.isEnabledFor(self.level):
            return
        record = logger.makeRecord(
            self.name,
            self.level,
            "",
            0,
            self.text,
            (),
            None,
            extra={"fields": {**self.fields, **more}},
        )
        record.created = self.created
        logger.handle(record)


Signal = Load | Stop | Loaded | NotLoaded | Logged
