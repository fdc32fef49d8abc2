"""`errata ask` and the container's health check where the environment names a proxy, and answers
that no Errata server gave: it works, or says in one line what stands in the way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from tests.support.server import ROOT, LiveServer, png
from tests.support.tiny_model import tiny_image

NOWHERE = "http://127.0.0.1:9"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, "no_proxy", "NO_PROXY", "ERRATA_URL", "ERRATA_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def image(tmp_path: Path) -> str:
    file = tmp_path / "picture.png"
    file.write_bytes(png(tiny_image(5)))
    return str(file)


def ask(image: str, *more: str) -> Result:
    return CliRunner().invoke(app, ["ask", image, "q", *more])


def said(result: Result) -> str:
    """The one line in which it failed."""
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("errata: ")
    return line


@contextmanager
def other_server(status: int, body: bytes, kind: str = "text/html") -> Iterator[str]:
    """One that answers every request so."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY", "http_proxy"])
@pytest.mark.parametrize("proxy", [NOWHERE, "socks5://127.0.0.1:9", "nonsense://x"])
def test_a_proxy_is_not_in_the_way_to_this_machine(
    server: LiveServer, image: str, monkeypatch: pytest.MonkeyPatch, name: str, proxy: str
) -> None:
    monkeypatch.setenv(name, proxy)
    result = ask(image, "--url", server.url)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("form", ["{}/", "{}//", " {}", "localhost"])
def test_an_address_may_be_written_in_more_ways(
    server: LiveServer, image: str, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    port = server.url.rpartition(":")[2]
    monkeypatch.setenv(
        "ERRATA_URL", f"localhost:{port}" if form == "localhost" else form.format(server.url)
    )
    assert ask(image).exit_code == 0


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "nonsense://x"])
def test_a_proxy_that_cannot_be_used_is_named(
    image: str, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    line = said(ask(image, "--url", "http://errata.example"))
    assert "proxy" in line
    assert "NO_PROXY" in line


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (502, b"<html>Bad Gateway</html>", "text/html"),
        (200, b"<html>Log in</html>", "text/html"),
        (301, b"", "text/html"),
        (404, b'{"detail": "Not Found"}', "application/json"),
        (500, b'{"error": "no"}', "application/json"),
        (200, b"[1]", "application/json"),
    ],
)
def test_an_answer_that_is_not_ours_is_one_line(
    image: str, status: int, body: bytes, kind: str
) -> None:
    with other_server(status, body, kind) as url:
        line = said(ask(image, "--url", url))
    assert f"answered {status}" in line
    assert url in line


@pytest.mark.parametrize("url", ["http://[", "http://", "ftp://127.0.0.1"])
def test_an_address_that_is_none_is_one_line(image: str, url: str) -> None:
    assert "errata: " in said(ask(image, "--url", url))


def test_a_key_that_no_header_can_hold(
    server: LiveServer, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERRATA_API_KEY", "schl\u00fcssel\u2026")
    assert "ERRATA_API_KEY" in said(ask(image, "--url", server.url))


def test_a_refusal_is_told_in_the_servers_words(server: LiveServer, image: str) -> None:
    long = "why " * 500
    line = said(CliRunner().invoke(app, ["ask", image, long, "--url", server.url]))
    assert "(context_too_long)" in line


def test_the_containers_health_check_goes_past_a_proxy(server: LiveServer) -> None:
    """It is run as the Dockerfile has it."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    found = re.search(r"^HEALTHCHECK .*\\\n +(\[.*\])$", text, re.MULTILINE)
    assert found is not None
    _, *arguments = json.loads(found.group(1))
    port = server.url.rpartition(":")[2]
    environment = os.environ | dict.fromkeys(PROXIES, NOWHERE) | {"ERRATA_PORT": port}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
