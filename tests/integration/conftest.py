"""One server a module, with the tiny random model. Edits of one test use pictures of their own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from tests.support.server import LiveServer, picture

Edit = Callable[..., dict[str, Any]]

BOTH_ENGINES = frozenset({"test_edits", "test_generate", "test_openai_chat"})

_seeds = itertools.count(1000)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Files of `BOTH_ENGINES` are run with either, except for what reaches into the model."""
    file = metafunc.module.__name__.rpartition(".")[2]
    if file in BOTH_ENGINES and "engine" in metafunc.fixturenames:
        is_marked = metafunc.definition.get_closest_marker("in_a_thread") is not None
        engines = ["thread"] if is_marked else ["thread", "process"]
        metafunc.parametrize("engine", engines, indirect=True, scope="module")


@pytest.fixture
def image() -> str:
    """A picture no other test uses."""
    return picture(next(_seeds))


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> str | None:
    """Where the model of `server` runs; None where the settings say."""
    where: str | None = getattr(request, "param", None)
    return where


@pytest.fixture(scope="module")
def server(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, engine: str | None
) -> Iterator[LiveServer]:
    data_dir = tmp_path_factory.mktemp("data")
    settings = Settings.load(
        model=str(tiny_checkpoint),
        data_dir=data_dir,
        device="cpu",
        store_timeout_s=0.2,
        engine=engine,
    )
    with LiveServer(settings) as live:
        yield live


@pytest.fixture
def client(server: LiveServer) -> httpx.Client:
    return server.client


def answer(client: httpx.Client, image: str | None, **fields: Any) -> dict[str, Any]:
    body = {"prompt": "q", "image": image, "max_new_tokens": 12} | fields
    response = client.post("/generate", json=body)
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()
    return result


@pytest.fixture
def telling(client: httpx.Client) -> str:
    """A picture on which edits to "blue", "one" and "two" can be told from the base model and
    from each other: with random weights, not every edit changes what is said first."""
    for seed in _seeds:
        image = picture(seed)
        texts = {answer(client, image)["text"]}
        for target in ("blue", "one", "two"):
            body = {"image": image, "prompt": "q", "target": target, "verify": "off"}
            made = client.post("/edits", json=body).json()
            texts.add(answer(client, image)["text"])
            client.post(f"/admin/edits/{made['id']}/rollback")
        if len(texts) == 4:
            return image
    raise AssertionError("the seeds never end")


@pytest.fixture
def edit(client: httpx.Client, image: str) -> Edit:
    """Commit an edit; by default unverified, since random weights seldom obey."""

    def make(**fields: Any) -> dict[str, Any]:
        body = {"image": image, "prompt": "q", "target": "blue", "verify": "off"} | fields
        response = client.post("/edits", json=body)
        assert response.status_code == 201, response.text
        made: dict[str, Any] = response.json()
        return made

    return make
