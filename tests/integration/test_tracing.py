"""Traces: what a request's spans are, and what is said where nothing can make them."""

from __future__ import annotations

import itertools
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from app.tracing import Tracing
from tests.integration.conftest import answer
from tests.support.server import LiveServer, eventually, picture

TRACE = "0af7651916cd43dd8448eb211c80319c"
PROMPT, TARGET = "a very private question", "a private answer"


@pytest.fixture
def asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")


def test_it_is_off_by_itself() -> None:
    tracing = Tracing.of_environment()
    with tracing.request("GET", {}) as span:
        span.status = 200
    tracing.close()


def test_what_is_missing_is_said(
    asks: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("opentelemetry.exporter", "opentelemetry.exporter.otlp", "opentelemetry.sdk"):
        monkeypatch.setitem(sys.modules, name, None)
    Tracing.of_environment().close()
    assert "pip install 'errata[otel]'" in caplog.text
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")]
)
def test_it_is_switched_off(
    asks: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv(name, value)
    with caplog.at_level(logging.INFO):
        Tracing.of_environment().close()
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]
)
def test_another_kind_is_not_there(
    asks: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv(name, value)
    Tracing.of_environment().close()
    assert value in caplog.text
    assert "There will be none" in caplog.text


# --- with the SDK ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spans(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Of a story: an edit, an edited answer, a stream, a refusal, all under one trace."""
    memory = pytest.importorskip(
        "opentelemetry.sdk.trace.export.in_memory_span_exporter",
        reason="the extra `otel` is not installed",
    )
    exporter = memory.InMemorySpanExporter()
    data_dir = tmp_path_factory.mktemp("data")
    server = LiveServer(
        Settings.load(model=str(tiny_checkpoint), data_dir=data_dir, device="cpu", refine_steps=0)
    )
    server.runtime.tracing.export_to(exporter, at_once=True)
    with server:
        client = server.client
        client.headers["traceparent"] = f"00-{TRACE}-b7ad6b7169203331-01"
        body = {"image": picture(1), "prompt": PROMPT, "target": TARGET, "verify": "report"}
        made = client.post("/edits", json=body).json()
        assert answer(client, picture(1), prompt=PROMPT)["text"] is not None
        ask = {"prompt": PROMPT, "image": picture(2), "stream": True, "max_new_tokens": 4}
        client.post("/generate", json=ask)
        client.get(f"/edits/{made['id']}")
        client.get("/edits/none")
        eventually(lambda: "GET /edits/{id}" in [s.name for s in exporter.get_finished_spans()])
    return list(exporter.get_finished_spans())


def named(spans: list[Any], name: str) -> list[Any]:
    return [span for span in spans if span.name == name]


def test_a_request_is_a_span_of_the_callers_trace(spans: list[Any]) -> None:
    of_requests = [span for span in spans if span.name.startswith(("GET ", "POST "))]
    assert {f"{span.context.trace_id:032x}" for span in of_requests} == {TRACE}
    (made,) = named(spans, "POST /edits")
    assert made.attributes["http.route"] == "/edits"
    assert made.attributes["http.request.method"] == "POST"
    assert made.attributes["http.response.status_code"] == 201
    statuses = {s.attributes["http.response.status_code"] for s in named(spans, "GET /edits/{id}")}
    assert statuses == {200, 404}


def test_an_answer_waits_is_read_and_written(spans: list[Any]) -> None:
    answers = named(spans, "errata.answer")
    asked = {span.context.span_id for span in named(spans, "POST /generate")}
    assert len(answers) == 2
    assert {span.parent.span_id for span in answers} == asked
    for each in answers:
        parts = [s for s in spans if s.parent and s.parent.span_id == each.context.span_id]
        assert [part.name.rpartition(".")[2] for part in parts] == ["queue", "prefill", "decode"]
        for earlier, later in itertools.pairwise(parts):
            assert earlier.start_time <= earlier.end_time <= later.end_time
        assert each.attributes["gen_ai.usage.output_tokens"] >= 1
    assert {span.attributes["errata.experts_applied"] for span in answers} == {0, 1}


def test_an_edit_is_encoded_verified_and_committed(spans: list[Any]) -> None:
    (whole,) = named(spans, "errata.edit")
    (made,) = named(spans, "POST /edits")
    assert whole.parent.span_id == made.context.span_id
    assert whole.attributes["errata.outcome"] == "committed"
    parts = [s.name for s in spans if s.parent and s.parent.span_id == whole.context.span_id]
    assert parts == ["errata.edit.encode", "errata.edit.verify", "errata.edit.commit"]


def test_no_text_and_no_id_is_in_them(spans: list[Any]) -> None:
    shown = [span.to_json() for span in spans]
    assert not any(PROMPT in text or TARGET in text for text in shown)
    names = [span.name for span in spans]
    assert not any(re.search(r"[0-9A-HJKMNP-TV-Z]{26}", name) for name in names)
