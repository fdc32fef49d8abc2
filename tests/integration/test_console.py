"""The console as files: what is served, what browsers are told, what fits together."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import get_args

import httpx
import pytest

from app.schemas.edits import EditView
from app.schemas.events import EventView
from editing_core.types import Outcome
from tests.support.server import ROOT

CONSOLE = ROOT / "app" / "console"
VENDOR = CONSOLE / "vendor"
FILES = sorted(path for path in CONSOLE.rglob("*") if path.is_file())
OWN = [path for path in FILES if VENDOR not in path.parents and path.suffix != ".png"]
SCRIPTS = [path for path in OWN if path.suffix == ".js"]
PAGES = [path for path in OWN if path.suffix == ".html"]
PAGE = (CONSOLE / "index.html").read_text("utf-8")

TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".md": "text/markdown",
}

SWAGGER_UI = {
    "LICENSE.txt": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
    "NOTICE.txt": "0d20d1adef18aee3f40dd258172155521ce702ac445cb5f7b7d60ed32dad2fb2",
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui-bundle.js.LICENSE.txt": (
        "37eb6e7e59aed57b2c1acf076574b818ea07b74265717e0bd67b59e0baf9abbb"
    ),
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
}


def name(path: Path) -> str:
    return path.relative_to(CONSOLE).as_posix()


def guarded(response: httpx.Response) -> bool:
    """Whether browsers are told to load nothing from elsewhere, and to show it in no frame."""
    policy = response.headers["content-security-policy"]
    return (
        "default-src 'self'" in policy
        and "frame-ancestors 'none'" in policy
        and "unsafe" not in policy
        and response.headers["x-content-type-options"] == "nosniff"
        and response.headers["referrer-policy"] == "no-referrer"
        and "access-control-allow-origin" not in response.headers
    )


def test_browsers_get_the_console_and_programs_json(client: httpx.Client) -> None:
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    page = client.get("/", headers={"Accept": accept})
    assert page.headers["content-type"].startswith("text/html")
    assert page.text == PAGE
    for wanted in ("application/json", "*/*"):
        answer = client.get("/", headers={"Accept": wanted})
        assert answer.json()["docs"] == "/docs"
        assert answer.headers["vary"] == "Accept"
    assert client.head("/", headers={"Accept": accept}).status_code == 200


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_file_is_served_as_what_it_is(client: httpx.Client, path: Path) -> None:
    response = client.get(f"/console/{name(path)}")
    assert response.content == path.read_bytes()
    kind = response.headers["content-type"].partition(";")[0]
    assert kind.replace("application/javascript", "text/javascript") == TYPES[path.suffix]
    assert response.headers["cache-control"] == "no-cache"
    assert guarded(response)
    known = {"If-None-Match": response.headers["etag"]}
    assert client.get(f"/console/{name(path)}", headers=known).status_code == 304


@pytest.mark.parametrize(
    "path", ["", "none.js", "css", "../main.py", "%2e%2e/main.py", "..%2fmain.py", "js/..%2f..%2f"]
)
def test_nothing_else_is(client: httpx.Client, path: str) -> None:
    response = client.get(f"/console/{path}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "route_not_found"
    assert client.post(f"/console/{path}").status_code in (404, 405)


def test_every_answer_is_guarded(client: httpx.Client, image: str) -> None:
    asked = {"prompt": "q", "image": image, "stream": True}
    for response in (
        client.get("/"),
        client.get("/docs"),
        client.get("/openapi.json"),
        client.get("/versions"),
        client.get("/nowhere"),
        client.get("/", headers={"Host": "evil.example"}),
        client.post("/generate", json=asked),
    ):
        assert guarded(response), response.url


def test_the_reference_is_drawn_by_files_of_this_server(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for file in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert client.get(f"/{file}").status_code == 200, file


@pytest.mark.parametrize("path", OWN, ids=name)
def test_no_file_names_an_outside_host(path: Path) -> None:
    hosts = re.findall(r"(?:https?:)?//(?:[\w-]+\.)+\w+[^\s\"']*", path.read_text("utf-8"))
    assert set(hosts) <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_pages_hold_no_script_and_no_style(path: Path) -> None:
    text = path.read_text("utf-8")
    assert "<style" not in text
    assert re.findall(r"\s(?:style|on\w+)=", text) == []
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))


def test_every_id_that_scripts_ask_for_is_in_the_page() -> None:
    ids = Counter(re.findall(r'\sid="([^"]+)"', PAGE))
    assert [name for name, count in ids.items() if count > 1] == []
    for script in SCRIPTS:
        source = script.read_text("utf-8")
        if script.name == "docs.js":
            continue
        asked = set(re.findall(r'(?:byId|getElementById|lines)\("([^"]+)"\)', source))
        assert asked <= set(ids), script
        symbols = {f"icon-{found}" for found in re.findall(r'\bicon\("([^"]+)"', source)}
        symbols |= {f"icon-{found}" for found in re.findall(r'emptyBox\("([^"]+)"', source)}
        assert symbols <= set(ids), script


def test_what_the_page_refers_to_is_in_it() -> None:
    ids = set(re.findall(r'\sid="([^"]+)"', PAGE))
    for attribute in ("for", "aria-labelledby"):
        assert set(re.findall(rf'\s{attribute}="([^"]+)"', PAGE)) <= ids
    assert set(re.findall(r'<use href="#([^"]+)"', PAGE)) <= ids
    assert all((CONSOLE.parent / file).is_file() for file in re.findall(r'"(console/[^"]+)"', PAGE))


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_scripts_import_what_is_there(script: Path) -> None:
    source = script.read_text("utf-8")
    for names, file in re.findall(r'import \{([^}]+)\} from "([^"]+)";', source):
        target = (script.parent / file).read_text("utf-8")
        for wanted in names.split(","):
            exported = wanted.partition(" as ")[0].strip()
            assert re.search(rf"export (async )?(const|function\*?|class) {exported}\b", target), (
                f"{exported} of {file}"
            )


def test_every_word_of_the_api_has_its_words() -> None:
    """What a view shows by name, it can name: outcomes, statuses, events."""
    events = EventView.model_fields["type"].annotation
    statuses = EditView.model_fields["status"].annotation
    for file, known in (
        ("views/explain.js", get_args(Outcome)),
        ("parts.js", get_args(statuses)),
        ("event_text.js", get_args(events)),
    ):
        source = (CONSOLE / "js" / file).read_text("utf-8")
        assert [word for word in known if f"  {word}: " not in source] in ([], ["restored"]), file


def test_samples_are_complete() -> None:
    samples = json.loads((CONSOLE / "samples" / "samples.json").read_text("utf-8"))
    files = {path.name for path in (CONSOLE / "samples").glob("*.png")}
    assert [sample["file"] for sample in samples if sample["file"] not in files] == []
    assert all(len(sample["questions"]) == len(sample["answers"]) for sample in samples)


def test_swagger_ui_is_the_release_that_was_reviewed() -> None:
    folder = VENDOR / "swagger-ui"
    files = {path.name: path for path in folder.iterdir() if path.name != "README.md"}
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert digests == SWAGGER_UI
