"""People who ask, leave and correct at random, all at once, while the engine is killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from tests.support.server import DEADLINE_S, LiveServer, eventually, picture

AT_ONCE = 12
PICTURES = [picture(40 + i) for i in range(4)]
QUESTIONS = [
    {"prompt": "q", "image": PICTURES[0], "max_new_tokens": 12},
    {"prompt": "q", "image": PICTURES[1], "max_new_tokens": 3},
    {"prompt": "Is the star blue? the the", "image": PICTURES[2], "max_new_tokens": 7},
    {"prompt": "the " * 20, "max_new_tokens": 9},
    {"prompt": "What is this?", "image": PICTURES[3], "max_new_tokens": 1},
]
ALLOWED = {"engine_restarting", "queue_full"}


@dataclass
class People:
    """What they did, and what they were told of it."""

    client: httpx.AsyncClient
    chance: random.Random
    answers: dict[tuple[int, int], set[str]] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    undone: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    done: int = 0
    waiting: list[tuple[int, asyncio.Event]] = field(default_factory=list)

    async def until(self, done: int) -> None:
        """Return once so many operations are."""
        event = asyncio.Event()
        self.waiting.append((done, event))
        await event.wait()

    async def ask(self) -> None:
        number = self.chance.randrange(len(QUESTIONS))
        response = await self.client.post("/generate", json=QUESTIONS[number])
        if self.is_refused(response):
            return
        told = response.json()
        self.answers.setdefault((number, told["version"]), set()).add(told["text"])

    async def leave(self) -> None:
        body = QUESTIONS[0] | {"max_new_tokens": 60, "stream": True}
        async with self.client.stream("POST", "/generate", json=body) as response:
            if response.status_code == 200:
                async for _ in response.aiter_lines():
                    return

    async def correct(self, number: int) -> None:
        """Until it is acknowledged: whoever is told to come back does."""
        body = {
            "image": self.chance.choice(PICTURES),
            "prompt": f"q{number}",
            "target": self.chance.choice(["blue", "one", "two"]),
            "verify": self.chance.choice(["off", "off", "report"]),
        }
        key = {"Idempotency-Key": f"edit {number}"}
        while True:
            response = await self.client.post("/edits", json=body, headers=key)
            if not self.is_refused(response):
                break
            await asyncio.sleep(0.2)
        made = response.json()
        assert response.status_code == 201, made
        self.acknowledged[made["id"]] = made["version"]

    async def undo(self) -> None:
        left = sorted(self.acknowledged.keys() - self.undone)
        if left:
            chosen = self.chance.choice(left)
            response = await self.client.post(f"/admin/edits/{chosen}/rollback")
            assert response.status_code == 200, response.text
            self.undone.add(chosen)

    def is_refused(self, response: httpx.Response) -> bool:
        if response.status_code < 400:
            return False
        code = response.json()["error"]["code"]
        assert code in ALLOWED, response.text
        assert int(response.headers["Retry-After"]) >= 1
        self.refused.append(code)
        return True

    async def live(self, operations: list[int]) -> None:
        """Take what is left of `operations`, one after another."""
        while operations:
            number, what = operations.pop(), self.chance.random()
            if what < 0.12:
                await self.correct(number)
            elif what < 0.18:
                await self.undo()
            elif what < 0.32:
                await self.leave()
            else:
                await self.ask()
            self.done += 1
            for done, event in self.waiting:
                if self.done >= done:
                    event.set()


async def play(server: LiveServer, people: People, operations: int) -> list[int]:
    """The engine is killed when half of it is done. Its memory then, and at each tenth after it."""
    sizes: list[int] = []

    async def watch() -> None:
        await people.until(operations // 2)
        os.kill(server.device_pid, signal.SIGKILL)
        await asyncio.to_thread(eventually, lambda: not is_ready(server))
        await asyncio.to_thread(eventually, lambda: is_ready(server))
        for tenth in range(6, 11):
            await people.until(operations * tenth // 10)
            sizes.append(resident(server.device_pid))

    left = list(range(operations))
    async with asyncio.timeout(30 * DEADLINE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        for _ in range(AT_ONCE):
            tasks.create_task(people.live(left))
    return sizes


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def is_ready(server: LiveServer) -> bool:
    return server.client.get("/health/ready").status_code == 200


def check(server: LiveServer, people: People) -> None:
    client = server.client
    eventually(lambda: is_ready(server))
    eventually(lambda: server.waiting == server.service.engine.queued == 0)
    assert "errata_engine_restarts_total 1.0" in client.get("/metrics").text
    for edit_id, version in people.acknowledged.items():
        edit = client.get(f"/edits/{edit_id}").json()
        assert edit["version"] == version
        assert (edit["status"] == "rolled_back") == (edit_id in people.undone)
    for (number, version), texts in people.answers.items():
        alone: Any = client.post("/generate", json=QUESTIONS[number] | {"at_version": version})
        assert alone.status_code == 200, alone.text
        assert texts == {alone.json()["text"]}, f"question {number} at version {version}"


def story(checkpoint: Path, folder: Path, seed: int, operations: int) -> tuple[People, list[int]]:
    settings = Settings.load(
        model=str(checkpoint), data_dir=folder, device="cpu", engine="process", refine_steps=2
    )

    async def all_of_it() -> list[int]:
        async with httpx.AsyncClient(
            base_url=server.url, timeout=DEADLINE_S, trust_env=False
        ) as client:
            people.client = client
            return await play(server, people, operations)

    with LiveServer(settings) as server:
        people = People(httpx.AsyncClient(), random.Random(seed))
        sizes = asyncio.run(all_of_it())
        check(server, people)
    return people, sizes


def test_nothing_acknowledged_is_lost_and_no_answer_is_anothers(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    people, _ = story(tiny_checkpoint, tmp_path, seed=1, operations=80)
    assert people.acknowledged
    assert people.answers


@pytest.mark.slow
def test_two_thousand_of_them(tiny_checkpoint: Path, tmp_path: Path) -> None:
    people, sizes = story(tiny_checkpoint, tmp_path, seed=2000, operations=2000)
    assert len(people.acknowledged) > 150
    assert sum(map(len, people.answers.values())) > 100
    assert max(sizes) < 1.1 * sizes[0] + 64 * 2**20, sizes
