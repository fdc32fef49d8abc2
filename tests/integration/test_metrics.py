"""What `/metrics` says after a story, by Prometheus's own parser; what the dashboard asks for."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import GAUGES
from tests.integration.conftest import Edit, answer
from tests.support.promql import Recording
from tests.support.server import LiveServer, picture

ROOT = Path(__file__).parents[2]

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(server: LiveServer) -> str:
    response = server.client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return response.text


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


@pytest.fixture
def recording(server: LiveServer, edit: Edit, image: str) -> Recording:
    """Before and after: an edit, a refused one, an edited answer, a stream, a rollback."""
    client, before = server.client, scrape(server)
    made = edit()
    refused = {"image": image, "prompt": "q", "target": "sphinx of black quartz, 4,1;7"}
    assert client.post("/edits", json=refused).status_code == 422
    assert answer(client, image)["applied"] != []
    ask = {"prompt": "q", "image": picture(3), "stream": True, "max_new_tokens": 4}
    assert client.post("/generate", json=ask).status_code == 200
    assert client.get("/no/such/path").status_code == 404
    client.post(f"/admin/edits/{made['id']}/rollback")
    return Recording(before, scrape(server), seconds=15.0)


@pytest.fixture
def story(recording: Recording) -> tuple[Samples, Samples]:
    return samples(recording.first), samples(recording.last)


def test_a_story_is_counted(server: LiveServer, story: tuple[Samples, Samples]) -> None:
    before, after = story

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert more("errata_edits_total", outcome="committed") == 1
    assert more("errata_edits_total", outcome="refused") == 1
    assert more("errata_verifications_total", outcome="off") == 1
    assert more("errata_edit_seconds_count", stage="encode") >= 2
    edited = [more("errata_answers_total", edited="true", finish_reason=r) for r in REASONS]
    plain = [more("errata_answers_total", edited="false", finish_reason=r) for r in REASONS]
    assert (sum(edited), sum(plain)) == (1, 1)
    assert more("errata_prompt_tokens_total") > 0
    assert more("errata_generated_tokens_total") > 0
    assert more("errata_queue_seconds_count") == 2
    assert more("errata_time_to_first_token_seconds_count") >= 1
    assert more("errata_experts_applied_sum") >= 1
    assert more("errata_http_requests_total", route="none", method="GET", status="404") == 1
    assert more("errata_http_requests_total", route="/edits", method="POST", status="422") == 1
    assert more("errata_store_seconds_count", operation="write") >= 2
    assert value(after, "errata_ready") == 1
    assert value(after, "errata_version") == server.version()


REASONS = ("stop", "length")


def test_no_metric_names_an_edit_or_a_text(
    server: LiveServer, story: tuple[Samples, Samples]
) -> None:
    _, after = story
    labels = {name for _, pairs in after for name, _ in pairs}
    assert labels <= {
        *("route", "method", "status", "edited", "finish_reason", "outcome", "stage", "operation"),
        "le",
    }
    routes = {text for _, pairs in after for name, text in pairs if name == "route"}
    assert not any(re.search(r"[0-9A-HJKMNP-TV-Z]{26}", route) for route in routes)


def test_every_metric_is_documented_and_the_dashboard_asks_for_no_other(
    server: LiveServer, story: tuple[Samples, Samples]
) -> None:
    families = {
        family.name: family.type
        for family in text_string_to_metric_families(server.client.get("/metrics").text)
    }
    exposed = {
        f"{name}_total" if kind == "counter" else name
        for name, kind in families.items()
        if not name.endswith("_created")
    }
    documented = set(re.findall(r"^\| `(errata_\w+)`", page("operations.md"), re.MULTILINE))
    assert exposed == documented
    assert set(GAUGES) <= documented
    asked = set(re.findall(r"errata_\w+", page("grafana/errata.json")))
    asked = {name.removesuffix("_bucket") for name in asked}
    assert asked == documented
    for query in queries():
        for name, matchers in re.findall(r"(errata_\w+)(?:\{([^}]*)\})?", query):
            assert any(sample == name for sample, _ in story[1]), query
            known = {label for sample, pairs in story[1] if sample == name for label, _ in pairs}
            wanted = set(re.findall(r"(\w+)=", matchers or ""))
            by = set(re.findall(r"\w+", (re.search(r"by \(([^)]*)\)", query) or [""])[0][2:]))
            assert wanted | by <= known, query


def test_the_dashboard_is_answered(recording: Recording) -> None:
    """Every query, from two scrapes of the story; those of failures have nothing to show."""
    for query in queries():
        found = recording.answer(query)
        if "429" in query:
            assert found == {}
            continue
        assert found != {}, query
        assert all(value >= 0 or math.isnan(value) for value in found.values()), query
        assert not all(math.isnan(value) for value in found.values()), query
    (share,) = recording.answer(
        'sum(rate(errata_answers_total{edited="true"}[$__rate_interval]))'
        " / sum(rate(errata_answers_total[$__rate_interval]))"
    ).values()
    assert share == 0.5
    by_status = recording.answer(
        "sum by (status) (rate(errata_http_requests_total[$__rate_interval]))"
    )
    assert by_status[frozenset({("status", "404")})] == pytest.approx(1 / 15)


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="there is no promtool; on Debian: prometheus"
)
def test_promtool_finds_nothing_to_say(recording: Recording) -> None:
    told = subprocess.run(
        ["promtool", "check", "metrics"],
        input=recording.last,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (told.returncode, told.stdout + told.stderr) == (0, "")


def queries() -> list[str]:
    return [
        target["expr"]
        for panel in json.loads(page("grafana/errata.json"))["panels"]
        for target in panel["targets"]
    ]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_a_probe_needs_no_key_and_refuses_a_query(server: LiveServer) -> None:
    refused = server.client.get("/metrics?a=1")
    assert refused.json()["error"]["code"] == "unknown_field"
