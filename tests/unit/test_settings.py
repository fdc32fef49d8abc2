"""Settings from people, from files, and from a cluster that has its own idea of variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import StartupError
from app.main import _allowed_hosts
from app.settings import Settings

OF_A_CLUSTER = {
    "ERRATA_SERVICE_HOST": "10.0.0.1",
    "ERRATA_SERVICE_PORT": "8000",
    "ERRATA_SERVICE_PORT_HTTP": "8000",
    "ERRATA_PORT": "tcp://10.0.0.1:8000",
    "ERRATA_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "ERRATA_PORT_8000_TCP_PROTO": "tcp",
    "ERRATA_PORT_8000_TCP_PORT": "8000",
    "ERRATA_PORT_8000_TCP_ADDR": "10.0.0.1",
    "ERRATA_GPU_SERVICE_HOST": "10.0.0.2",
    "ERRATA_GPU_PORT": "tcp://10.0.0.2:8000",
    "ERRATA_GPU_PORT_8000_TCP": "tcp://10.0.0.2:8000",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")


def given(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings.load()


def test_variables_that_kubernetes_sets_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch, **OF_A_CLUSTER).port == 8000


def test_a_name_that_only_looks_like_one_of_a_cluster_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(StartupError, match="ERRATA_PORTS: unknown setting"):
        given(monkeypatch, ERRATA_PORTS="8000")
    monkeypatch.delenv("ERRATA_PORTS")
    with pytest.raises(StartupError, match="port"):
        given(monkeypatch, ERRATA_PORT="http")


@pytest.mark.parametrize("name", ["PORT", "MODEL", "ALLOWED_HOSTS", "EDITOR", "DATA_DIR"])
def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert given(monkeypatch, **{f"ERRATA_{name}": ""}) == Settings()


def test_a_host_is_the_same_in_capitals(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = given(monkeypatch, ERRATA_ALLOWED_HOSTS='["Errata.Example.ORG", "[::2]"]')

    assert {"errata.example.org", "::2"} <= _allowed_hosts(settings)


@pytest.mark.parametrize(
    "host", ["a.org:8000", "http://a.org", "*.a.org", "*", "a.org/", "", "a b", "user@a.org"]
)
def test_what_no_host_header_says_is_no_allowed_host(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    with pytest.raises(StartupError, match="is no host name"):
        given(monkeypatch, ERRATA_ALLOWED_HOSTS=f'["{host}"]')


def test_a_tilde_in_the_file_is_the_home_directory(tmp_path: Path) -> None:
    Path("errata.toml").write_text('data_dir = "~/edits"\nmodel = "~/vlm"\n', "utf-8")

    settings = Settings.load()

    assert settings.data_dir == Path("/home/somebody/edits")
    assert settings.model == "/home/somebody/vlm"


def test_the_folder_one_stands_in_has_a_name(tmp_path: Path) -> None:
    assert Settings.load(model=".").model_name == tmp_path.name


@pytest.mark.parametrize(
    "url", ["sqlite:///:memory:", "sqlite:///", "sqlite:///file:x?mode=memory&uri=true"]
)
def test_a_database_in_memory_is_refused_in_words(url: str) -> None:
    with pytest.raises(StartupError, match="must outlive the process"):
        Settings.load(database_url=url)
