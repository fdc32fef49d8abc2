"""What is installed: all that a server needs, and a client that needs nothing of the server."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("app", "editing_core", "migrations")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")

pytestmark = pytest.mark.slow


def shipped_files() -> set[str]:
    """Every file under the packages that git would commit, by its path."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build is given: the packages, and what stands beside them."""
    if not (ROOT / ".git").exists():
        pytest.skip("lists files with git")
    folder = tmp_path_factory.mktemp("tree")
    for name in [*shipped_files(), "pyproject.toml", "README.md", "LICENSE", "errata_start.py"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    flags = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*PIP, "wheel", *flags, str(tree)], check=True, capture_output=True)
    (file,) = folder.glob("errata-*.whl")
    return file


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    client = {name for name in held if name.startswith("errata/")}

    assert shipped_files() - held == set()
    assert {f"app/{name}" for name in client} == {n for n in held if n.startswith("app/errata/")}
    assert {"errata/__init__.py", "errata/py.typed"} <= client


@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_the_client_is_there_beside_another_app(
    tree: Path, wheel: Path, tmp_path: Path, editable: bool
) -> None:
    """In an environment of its own, run where a folder `app` is somebody else's."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    # What it depends on, without what is installed there by hooks.
    (site / "others.pth").write_text("\n".join(p for p in sys.path if "site-packages" in p))
    what = ["--editable", str(tree)] if editable else [str(wheel)]
    flags = ["--no-deps", "--no-build-isolation", *what]
    subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", "install", *flags],
        check=True,
        capture_output=True,
    )
    (tmp_path / "theirs" / "app").mkdir(parents=True)
    (tmp_path / "theirs" / "app" / "__init__.py").write_text("theirs = True\n")
    program = """
import errata
from errata import AsyncClient, Client
import app
import sys
print(errata.__file__)
print(app.theirs, [name for name in sys.modules if name.startswith("app.")])
"""
    done = subprocess.run(
        [python, "-c", program], cwd=tmp_path / "theirs", capture_output=True, text=True, check=True
    )
    where, theirs = done.stdout.splitlines()
    assert Path(where).is_relative_to(tree if editable else site)
    assert theirs == "True []"
