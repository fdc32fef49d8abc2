"""Prose that can go stale is checked against the code."""

from __future__ import annotations

import ast
import asyncio
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import pytest
import typer

import editing_core.errors
from app.cli import COMMANDS
from app.errata import Client
from app.errors import ServiceError
from app.handlers import OPENAI_CODES
from app.main import create_app
from app.metrics import GAUGES, Metrics
from app.settings import ENV_PREFIX, Settings
from editing_core.types import Outcome

E = TypeVar("E", bound=Exception)

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "requirements").glob("*.md")])
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def subclasses(root: type[E]) -> Iterator[type[E]]:
    for child in root.__subclasses__():
        yield child
        yield from subclasses(child)


def first_line(module: Path) -> str:
    """What the module says it is."""
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    assert docstring, f"{module} has no docstring"
    return docstring.partition("\n")[0]


def error_codes() -> set[str]:
    errors = [*subclasses(ServiceError), *subclasses(editing_core.errors.RequestError)]
    # A class without a code of its own is a branch of the tree, never an answer.
    return {vars(error)["code"] for error in errors if "code" in vars(error)}


def test_every_error_code_is_documented() -> None:
    page = read("api.md")
    codes = error_codes() | set(OPENAI_CODES.values())

    assert "edit_conflicts" in codes
    assert [code for code in sorted(codes) if f"`{code}`" not in page] == []


def test_every_documented_error_code_exists_and_has_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| ([^|]+) \|", read("api.md"), re.MULTILINE)
    documented = {code: int(status) for status, codes in rows for code in re.findall(r"\w+", codes)}
    statuses = {ServiceError.code: ServiceError.status} | {
        each.code: each.status for each in subclasses(ServiceError) if "code" in vars(each)
    }

    assert documented.keys() == error_codes() | {"internal_error"}
    # What the model's code refuses is 422 as long as no class here says otherwise.
    assert documented == {code: statuses.get(code, 422) for code in documented}


def test_every_warning_of_an_edit_is_documented() -> None:
    source = (ROOT / "app" / "edits" / "oddities.py").read_text("utf-8")
    codes = re.findall(r'EditWarning\(\s*"(\w+)"', source)

    assert codes
    assert [code for code in codes if f"| `{code}` |" not in read("api.md")] == []


@pytest.mark.parametrize("name", ["api.md", "tutorial.md"])
def test_every_outcome_of_a_candidate_is_explained(name: str) -> None:
    page = read(name)

    assert [outcome for outcome in get_args(Outcome) if f"`{outcome}`" not in page] == []


def test_every_setting_is_documented() -> None:
    page = read("operations.md")
    variables = [ENV_PREFIX + name.upper() for name in Settings.model_fields]

    assert [name for name in variables if f"`{name}`" not in page] == []


def shown(default: object) -> str | None:
    """As the table shows it; what has no plain value is described in words."""
    match default:
        case None:
            return None
        case bool():
            return str(default).lower()
        case float():
            return f"{default:g}"
        case Path():
            return f"./{default}"
        case ():
            return "[]"
    return str(default)


def test_every_default_is_documented_as_it_is() -> None:
    rows = dict(
        re.findall(r"^\| `(ERRATA_\w+)` \| ([^|]+) \|", read("operations.md"), re.MULTILINE)
    )
    defaults = {
        ENV_PREFIX + name.upper(): shown(field.default)
        for name, field in Settings.model_fields.items()
    }

    assert rows.keys() == defaults.keys()
    assert [
        name
        for name, default in defaults.items()
        if (rows[name].startswith("`") if default is None else rows[name] != f"`{default}`")
    ] == []


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


def options() -> dict[str, set[str]]:
    """The options of each command, those of the commands below it among them."""
    found: dict[str, set[str]] = {}
    for name, (module, _) in COMMANDS.items():
        path, _, holder = module.partition(":")
        application = getattr(importlib.import_module(path), holder or "app")
        command: Any = typer.main.get_command(application)
        below = getattr(command, "commands", {}).values()
        found[name] = {
            option
            for each in (command, *below)
            for parameter in each.params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_that_are_shown_have_the_options_they_are_shown_with(page: Path) -> None:
    known = options()
    code = re.findall(
        r"^```\w*\n(.*?)^ *```$|`(errata [^`\n]+)`", page.read_text("utf-8"), re.M | re.S
    )
    lines = [line.partition(" #")[0] for each in code for line in "\n".join(each).splitlines()]
    calls = [
        (name, option)
        for line in lines
        for name, arguments in re.findall(
            r"\berrata ([a-z][a-z-]*)((?: (?:(?!\$\()[^|;)])*)?)", line
        )
        for option in re.findall(r"(?<= )--[a-z][a-z-]*", arguments)
    ]

    assert [call for call in calls if call[0] not in known or call[1] not in known[call[0]]] == []


def test_every_metric_is_documented_and_every_documented_metric_exists() -> None:
    """That a server shows each of them after a story, `test_metrics.py` says."""
    documented = re.findall(r"^\| `(errata_\w+)` \|", read("operations.md"), re.MULTILINE)
    exposed = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in Metrics().registry.collect()
    }

    assert "errata_answers_total" in exposed
    assert set(documented) == exposed | set(GAUGES)


def test_every_method_of_the_client_is_documented() -> None:
    page = read("clients.md")
    methods = [name for name in dir(Client) if not name.startswith("_")]

    assert "edit_many" in methods
    plumbing = {"close", "send", "url"}
    assert [name for name in methods if f"`{name}`" not in page and name not in plumbing] == []


def test_every_tool_for_agents_is_documented() -> None:
    source = (ROOT / "app" / "commands" / "mcp_tools.py").read_text("utf-8")
    added = re.findall(r"_guarded\((\w+)\)|for tool in \(([^)]+)\)", source)
    tools = set(re.findall(r"\w+", " ".join(map(" ".join, added)))) - {"tool"}

    assert {"ask", "roll_back"} <= tools
    assert [name for name in tools if f"| `{name}` |" not in read("clients.md")] == []


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


def test_every_route_is_documented_and_every_documented_route_exists(tmp_path: Path) -> None:
    page = read("api.md")
    application = create_app(Settings(data_dir=tmp_path))
    paths = application.openapi()["paths"]
    asyncio.run(application.state.runtime.close())
    routes = {f"{method.upper()} {path}" for path in paths for method in paths[path]}
    pages = {"GET /", "GET /docs", "GET /openapi.json"}  # no part of the schema
    documented = set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[\w/{}.-]*)", page))

    assert "POST /edits" in routes
    assert sorted(routes - documented) == []
    assert sorted(documented - routes - pages) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_page_is_left_with_blanks(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert re.findall(r"@[A-Z_]+@|\bTODO\b|\bTBD\b|<!-- figures.*-->", text) == []


def test_the_walk_of_a_correction_names_at_most_eight_files() -> None:
    walk = read("architecture.md").partition("## A correction: `POST /edits`")[2]
    files = set(re.findall(r"`(app/[\w/]+\.py)`", walk.partition("\n## ")[0]))

    assert "app/edits/edit.py" in files
    assert len(files) <= 8, sorted(files)
