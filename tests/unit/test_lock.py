"""What gets installed is pinned, hashed, and bound to no machine's own package index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("runtime.lock", "dev.lock")
PROVING = "proving.txt"
CLIENTS = "clients.lock"
LMMS = "lmms.txt"
PIP = "pip.txt"
MCP = "mcp.lock"


def entries(lock: str) -> dict[str, str]:
    """Package name -> its whole entry in the lock, continuation lines joined."""
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return {re.split(r"[=;\s]", line, maxsplit=1)[0]: line for line in lines}


def locked_version(entry: str) -> str:
    match = re.search(r"==([^\s;\\]+)", entry)
    assert match, entry
    return match[1]


@pytest.mark.parametrize("lock", [*LOCKS, PROVING, CLIENTS, LMMS, PIP, MCP])
def test_every_entry_is_pinned_and_hashed(lock: str) -> None:
    for name, entry in entries(lock).items():
        assert re.match(r"[a-z0-9-]+==\S+", entry), name
        assert "--hash=sha256:" in entry, name


@pytest.mark.parametrize("lock", [*LOCKS, PROVING, CLIENTS, LMMS, PIP, MCP])
def test_no_entry_points_at_a_machine_or_an_index(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")

    assert not re.search(r"file:|://|^-", text, re.MULTILINE)


def test_the_lock_satisfies_every_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    locked = entries("runtime.lock")
    locked |= entries("dev.lock")
    locked |= {"torch": (ROOT / "requirements" / "torch.txt").read_text(encoding="utf-8").strip()}
    declared = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]

    for requirement in map(Requirement, declared):
        assert requirement.specifier.contains(locked_version(locked[requirement.name]))


def test_the_proving_ground_is_an_extra_that_nothing_else_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (gguf,) = map(Requirement, project["project"]["optional-dependencies"]["proving"])
    pinned = entries(PROVING)

    assert gguf.specifier.contains(locked_version(pinned[gguf.name]))
    assert not set(pinned) & (set(entries("runtime.lock")) | set(entries("dev.lock")))


def test_torch_and_what_only_some_builds_need_stay_out_of_the_hashed_lock() -> None:
    names = set(entries("runtime.lock"))

    assert not [name for name in names if re.match(r"torch$|nvidia-|triton", name)]


def test_every_client_is_locked() -> None:
    lines = (ROOT / "requirements" / "clients.in").read_text(encoding="utf-8").splitlines()
    locked = entries(CLIENTS)

    for requirement in map(Requirement, (line for line in lines if not line.startswith("#"))):
        assert requirement.specifier.contains(locked_version(locked[requirement.name]))


def test_what_lmms_eval_adds_is_in_no_other_file() -> None:
    added = set(entries(LMMS))

    assert "lmms-eval" in added
    assert not added & (set(entries(CLIENTS)) | {"torch"})


def test_the_extra_for_mcp_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (extra,) = project["project"]["optional-dependencies"]["mcp"]
    lines = (ROOT / "requirements" / "mcp.in").read_text(encoding="utf-8").splitlines()

    assert [line for line in lines if not line.startswith("#")] == [extra]
    wanted = Requirement(extra)
    assert wanted.specifier.contains(locked_version(entries(MCP)[wanted.name]))


@pytest.mark.parametrize("lock", ["dev.lock", MCP])
def test_what_is_installed_together_agrees(lock: str) -> None:
    runtime, other = entries("runtime.lock"), entries(lock)

    for name in runtime.keys() & other.keys():
        assert locked_version(runtime[name]) == locked_version(other[name])
