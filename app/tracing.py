"""Traces for OpenTelemetry: off, unless its standard variables ask for them. No id, no text.

Needs `pip install 'errata[otel]'`. A request is a span while it runs. What happens inside is
written down when it is over, from times that were taken anyway: whatever works knows of no trace.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from app.timing import Lap

logger = logging.getLogger(__name__)

_ASKING = (
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)

Attributes = Mapping[str, str | int | float | bool]


@dataclass(slots=True)
class RequestSpan:
    """What becomes known of a request at its end. `route` is a template, never a path."""

    route: str | None = None
    status: int = 0


class Tracing:
    """One per application. Does nothing until it is given somewhere to write to."""

    def __init__(self) -> None:
        self._tracer: Any = None
        self._shut_down: Callable[[], None] = lambda: None

    @classmethod
    def of_environment(cls) -> Tracing:
        """On, if the standard variables ask for it and what makes traces is installed."""
        tracing = cls()
        asked_by = _asked_by(os.environ)
        if asked_by is None:
            return tracing
        try:
            exporter = _exporter(os.environ)
        except ImportError:
            logger.warning(
                "%s asks for traces, and what makes them is not installed: "
                "pip install 'errata[otel]'. There will be none.",
                asked_by,
            )
            return tracing
        if exporter is not None:
            tracing.export_to(exporter)
            logger.info("traces are written as %s asks", asked_by)
        return tracing

    def export_to(self, exporter: Any, *, at_once: bool = False) -> None:
        """Write spans to an exporter of OpenTelemetry's; in batches, unless `at_once`."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

        is_named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        resource = Resource.create({} if is_named else {"service.name": "errata"})
        provider = TracerProvider(resource=resource)
        processor = SimpleSpanProcessor if at_once else BatchSpanProcessor
        provider.add_span_processor(processor(exporter))
        self._tracer = provider.get_tracer("errata")
        self._shut_down = provider.shutdown

    def close(self) -> None:
        """Write what is left. Blocking, some seconds where the receiver does not answer."""
        self._shut_down()

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[RequestSpan]:
        """The span of one request, a child of the caller's where `traceparent` names one."""
        seen = RequestSpan()
        if self._tracer is None:
            yield seen
            return
        from opentelemetry import propagate
        from opentelemetry.trace import SpanKind, Status, StatusCode

        with self._tracer.start_as_current_span(
            method,
            context=propagate.extract(headers),
            kind=SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield seen
            finally:
                if seen.route is not None:
                    span.update_name(f"{method} {seen.route}")
                    span.set_attribute("http.route", seen.route)
                span.set_attribute("http.request.method", method)
                span.set_attribute("http.response.status_code", seen.status)
                if seen.status >= 500:
                    span.set_status(Status(StatusCode.ERROR))

    def record(self, name: str, laps: Sequence[Lap], attributes: Attributes) -> None:
        """A span that is over, with a child for each of its `laps`, inside the current one."""
        if self._tracer is None or not laps:
            return
        from opentelemetry import trace

        whole = self._tracer.start_span(
            name, start_time=_since_1970(min(lap.began for lap in laps)), attributes=attributes
        )
        inside = trace.set_span_in_context(whole)
        for lap in laps:
            part = self._tracer.start_span(
                f"{name}.{lap.name}", context=inside, start_time=_since_1970(lap.began)
            )
            part.end(_since_1970(lap.ended))
        whole.end(_since_1970(max(lap.ended for lap in laps)))


def _since_1970(moment: float) -> int:
    """Nanoseconds, of a moment on the clock that times are measured with."""
    return time.time_ns() + int((moment - time.perf_counter()) * 1e9)


def _asked_by(environment: Mapping[str, str]) -> str | None:
    """The variable that asks for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if environment.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    return next((name for name in _ASKING if environment.get(name)), None)


def _exporter(environment: Mapping[str, str]) -> Any:
    """None where another kind is asked for than there is. Raises `ImportError`."""
    kind = environment.get("OTEL_TRACES_EXPORTER") or "otlp"
    protocol = (
        environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    )
    if kind == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if (kind, protocol) != ("otlp", "http/protobuf"):
        logger.warning(
            "traces are asked for as %s over %s; there is otlp over http/protobuf, and console. "
            "There will be none.",
            kind,
            protocol,
        )
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
