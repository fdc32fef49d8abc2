"""Imports point one way. The contracts are in `pyproject.toml`; here they are shown to bite."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("app", "editing_core", "migrations")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter as `make check` does, on the packages that lie in `folder`."""
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [command, "--config", "pyproject.toml", "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def new_modules_of(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `statement`."""
    program = (
        f"import sys\n{statement}\nprint(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


@pytest.fixture
def copied_tree(tmp_path: Path) -> Path:
    """The packages and their contracts, without weights, free to be spoilt."""
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package,
            tmp_path / package,
            ignore=shutil.ignore_patterns("__pycache__", "pretrained", "console"),
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_is_kept(copied_tree: Path) -> None:
    report = lint_imports(copied_tree)

    assert report.returncode == 0, report.stdout + report.stderr
    assert "0 broken" in report.stdout


@pytest.mark.parametrize(
    ("module", "import_line", "broken_contract"),
    [
        ("editing_core/errors.py", "import app.main", "The library knows no server"),
        ("editing_core/registry.py", "import fastapi", "The library knows no server"),
        ("editing_core/types.py", "import sqlalchemy", "The library knows no server"),
        (
            "editing_core/index/base.py",
            "import editing_core.editors.base",
            "Inside the library, arrows point down",
        ),
        ("app/engine.py", "import app.service", "In the service, arrows point down"),
        ("app/errata/models.py", "import app.errors", "In the service, arrows point down"),
        ("app/errata/calls.py", "import editing_core.types", "The client knows no server"),
        (
            "app/service.py",
            "import editing_core.editable_model",
            "The service reaches the model by messages alone",
        ),
        (
            "app/device/snapshots.py",
            "import app.device.thread",
            "What the server's process runs does not load the model",
        ),
    ],
)
def test_an_arrow_the_wrong_way_is_caught(
    copied_tree: Path, module: str, import_line: str, broken_contract: str
) -> None:
    spoilt = copied_tree / module
    spoilt.write_text(spoilt.read_text(encoding="utf-8") + f"\n{import_line}\n", encoding="utf-8")

    report = lint_imports(copied_tree)

    assert report.returncode != 0
    assert f"{broken_contract} BROKEN" in " ".join(report.stdout.split())


def test_the_library_loads_no_server() -> None:
    loaded = new_modules_of("import editing_core.editable_model")

    assert "torch" in loaded
    assert not loaded & {"app", "fastapi", "sqlalchemy", "starlette", "uvicorn"}


def test_a_server_whose_model_is_elsewhere_loads_nothing_that_runs_one() -> None:
    loaded = new_modules_of("import app.main, app.commands.serve, app.device.supervision")

    assert "torch" in loaded  # what edits are made of
    assert "transformers" not in loaded


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    """`errata --help` and `errata sample` answer at once."""
    loaded = new_modules_of("import app.cli")

    assert "typer" in loaded
    assert not loaded & {"faiss", "sqlalchemy", "torch", "transformers"}


def test_the_client_loads_nothing_of_the_server() -> None:
    """Nor what only some callers need: pictures may come as arrays, and need not."""
    loaded = new_modules_of("import app.errata")

    assert {"httpx", "pydantic"} <= loaded
    assert not loaded & {"editing_core", "fastapi", "numpy", "PIL", "sqlalchemy", "torch", "typer"}
