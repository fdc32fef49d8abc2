"""Prose that can go stale is checked against the code."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import app.errors
import editing_core.errors
from app.cli import COMMANDS
from app.main import create_app
from app.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "requirements").glob("*.md")])
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def subclasses(root: type[Exception]) -> Iterator[type[Exception]]:
    for child in root.__subclasses__():
        yield child
        yield from subclasses(child)


def first_line(module: Path) -> str:
    """What the module says it is."""
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    assert docstring, f"{module} has no docstring"
    return docstring.partition("\n")[0]


def test_every_error_code_is_documented() -> None:
    page = read("api.md")
    errors = [
        *subclasses(app.errors.ServiceError),
        *subclasses(editing_core.errors.RequestError),
    ]
    # A class without a code of its own is a branch of the tree, never an answer.
    codes = {vars(error)["code"] for error in errors if "code" in vars(error)}

    assert codes
    assert [code for code in sorted(codes) if f"`{code}`" not in page] == []


def test_every_setting_is_documented() -> None:
    page = read("operations.md")
    variables = [ENV_PREFIX + name.upper() for name in Settings.model_fields]

    assert [name for name in variables if f"`{name}`" not in page] == []


def test_every_documented_setting_exists() -> None:
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    known |= {"ERRATA_URL", "ERRATA_API_KEY"}
    mentioned = {
        name for page in PAGES for name in re.findall(r"ERRATA_[A-Z_]+", page.read_text("utf-8"))
    }

    assert mentioned <= known


def test_every_command_is_documented() -> None:
    page = read("operations.md")

    assert [name for name in COMMANDS if f"`errata {name}" not in page] == []


@pytest.mark.parametrize("package", ["app", "editing_core", "migrations"])
def test_every_module_has_its_line_in_the_architecture(package: str) -> None:
    """The line is the first of the module's docstring; a failure prints what is to be pasted."""
    page = read("architecture.md")
    paths = [
        path
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "__init__.py" and path.parent.name != "versions"
    ]
    lines = [f"| `{path.relative_to(ROOT).as_posix()}` | {first_line(path)} |" for path in paths]

    assert [line for line in lines if line not in page] == []


def test_every_module_of_the_architecture_exists() -> None:
    mentioned = re.findall(
        r"`((?:app|editing_core|migrations)/[\w/]+\.py)`", read("architecture.md")
    )

    assert [module for module in mentioned if not (ROOT / module).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    targets = _LINK.findall(page.read_text(encoding="utf-8"))

    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_route_is_documented(tmp_path: Path) -> None:
    page = read("api.md")
    application = create_app(Settings(data_dir=tmp_path))
    paths = application.openapi()["paths"]
    asyncio.run(application.state.runtime.close())
    routes = [f"{method.upper()} {path}" for path in paths for method in paths[path]]

    assert "POST /edits" in routes
    assert [route for route in routes if f"`{route}" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_page_is_left_with_blanks(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert re.findall(r"@[A-Z_]+@|\bTODO\b|\bTBD\b|<!-- figures.*-->", text) == []


def test_the_walk_of_a_correction_names_at_most_eight_files() -> None:
    walk = read("architecture.md").partition("## A correction: `POST /edits`")[2]
    files = set(re.findall(r"`(app/[\w/]+\.py)`", walk.partition("\n## ")[0]))

    assert "app/edits/edit.py" in files
    assert len(files) <= 8, sorted(files)
