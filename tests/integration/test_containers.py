"""Dockerfile and compose file, without an engine: what they name exists, what they start runs."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.settings import Settings
from tests.support.server import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVERS = {name: each for name, each in COMPOSE["services"].items() if "build" in each}
KEY = "k" * 48


def filled_in(text: str, variables: dict[str, str]) -> str:
    """As compose does it: `${NAME:-default}`, and `${NAME:?why}` for what must be given."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if variables.get(name):
            return variables[name]
        assert operator != ":?", f"{name}: {rest}"
        return rest or ""

    return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", value, text)


def environment(service: dict[str, Any], **variables: str) -> dict[str, str]:
    return {
        name: filled_in(str(value), variables) for name, value in service["environment"].items()
    }


def test_every_profile_starts_one_server() -> None:
    profiles = [profile for each in SERVERS.values() for profile in each["profiles"]]
    assert sorted(profiles) == ["cpu", "gpu", "postgres"]


def test_every_target_is_a_stage_and_drops_its_rights() -> None:
    stages = dict(
        re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.DOTALL | re.MULTILINE)
    )
    for service in SERVERS.values():
        assert stages[service["build"]["target"]].rstrip().endswith("USER errata")
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]


def test_every_file_that_is_copied_or_installed_exists_and_is_sent_to_the_builder() -> None:
    rules = (ROOT / ".dockerignore").read_text("utf-8").split()
    sent = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    copied = [
        source
        for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for source in line.split()
    ]
    installed = re.findall(r"-r (?:/build/)?(\S+)", DOCKERFILE)
    assert "requirements/runtime.lock" in installed
    for name in [*copied, *installed]:
        assert (ROOT / name).exists(), name
        assert any(fnmatch.fnmatch(name.split("/")[0], rule) for rule in sent), name


def test_every_variable_is_a_setting() -> None:
    known = {f"ERRATA_{name.upper()}" for name in Settings.model_fields}
    image = re.findall(r"\b(ERRATA_\w+)=", DOCKERFILE)
    named = [name for each in SERVERS.values() for name in each["environment"]]
    assert {name for name in [*image, *named] if name.startswith("ERRATA_")} <= known


def test_nobody_else_gets_in_unless_somebody_says_so() -> None:
    for name, service in SERVERS.items():
        (port,) = service["ports"]
        assert filled_in(port, {}) == "127.0.0.1:8000:8000"
        with pytest.raises(AssertionError, match="how to make one"):
            environment(service)
        assert environment(service, ERRATA_ADMIN_KEY=KEY)["ERRATA_MODEL"] == "heraldry", name
    assert "ports" not in COMPOSE["services"]["database"]


@pytest.mark.parametrize("name", ["errata"])
def test_a_server_with_that_environment_wants_a_key(
    name: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"ERRATA_ADMIN_KEY": KEY, "ERRATA_MODEL": str(tiny_checkpoint)}
    given = environment(SERVERS[name], **variables) | {
        "ERRATA_DATA_DIR": str(tmp_path / "data"),
        "ERRATA_HOST": re.findall(r"ERRATA_HOST=(\S+)", DOCKERFILE)[0],
        "ERRATA_DEVICE": "cpu",
    }
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    with ServerProcess(cwd=tmp_path) as running:
        assert running.url.startswith("http://0.0.0.0:"), running.lines
        url = running.url.replace("0.0.0.0", "127.0.0.1")
        key = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            assert client.get("/health/ready").status_code == 200
            assert client.get("/edits").status_code == 401
            assert client.get("/edits", headers=key).status_code == 200
