"""Questions, edits and cancellations in any order: nobody hears another's answer, nothing stays."""

from __future__ import annotations

import gc
import queue
import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
import torch

from app.device.messages import Begun, Cancel, Done, Encode, Failed, Generate, Progress, Reply, Text
from app.device.thread import DeviceThread
from editing_core.batching.rows import RunningRow
from editing_core.editable_model import EditableModel
from editing_core.errors import GenerationCancelled
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.generation import GenerationRow
from editing_core.types import EditArtifact, EditRequest, GenerationResult, Sampling
from tests.support.tiny_model import tiny_image

IN_FLIGHT = 20
DEADLINE_S = 120
REQUESTS = [EditRequest(tiny_image(i), "q", "the blue") for i in range(3)]
EDITORS = ("liveedit", "liveedit-paper", "visedit")
QUESTIONS = [
    ("q", tiny_image(0), Sampling(max_new_tokens=12)),
    ("q", tiny_image(1), Sampling(max_new_tokens=3)),
    ("Is the star blue? the the", tiny_image(2), Sampling(max_new_tokens=7)),
    ("the " * 20, None, Sampling(max_new_tokens=9)),
    ("q", tiny_image(0), Sampling(max_new_tokens=5, temperature=1.0, seed=3)),
    ("What is this?", tiny_image(1), Sampling(max_new_tokens=1)),
]


@dataclass
class World:
    """What may be asked, and what comes of it alone."""

    model: EditableModel
    artifacts: list[EditArtifact]
    snapshots: list[Snapshot]
    answers: dict[tuple[int, int], GenerationResult] = field(default_factory=dict)

    @classmethod
    def of(cls, model: EditableModel) -> World:
        made = [model.encode(r, editor=e) for r, e in zip(REQUESTS, EDITORS, strict=True)]
        entries = [MemoryEntry(f"e{i}", each, f"sha256:{i}", "q") for i, each in enumerate(made)]
        none = model.empty_snapshot()
        some = none.evolve(1, activate=entries)
        return cls(model, made, [none, some, some.evolve(2, deactivate=["e0"])])

    def row(self, question: int, version: int) -> GenerationRow:
        prompt, image, sampling = QUESTIONS[question]
        return GenerationRow(prompt, image, sampling, self.snapshots[version])

    def alone(self, question: int, version: int) -> GenerationResult:
        if (question, version) not in self.answers:
            (result,) = self.model.generate([self.row(question, version)])
            self.answers[question, version] = result
        return self.answers[question, version]


@pytest.fixture(scope="module")
def world(tiny_model: EditableModel) -> World:
    return World.of(tiny_model)


def play(world: World, seed: int, *, operations: int) -> int:
    """Let them happen at random, check every reply, and return how many rows were answered."""
    chance, replies = random.Random(seed), queue.SimpleQueue[Reply]()
    device = DeviceThread(world.model, replies.put, rows_at_once=8, tokens_at_once=900)
    asked: dict[int, list[tuple[int, int]]] = {}
    edits: dict[int, int] = {}
    cancelled, outstanding, version = set[int](), set[int](), 0
    heard: list[Reply] = []

    def hear() -> None:
        reply = replies.get(timeout=DEADLINE_S)
        heard.append(reply)
        if isinstance(reply, Done | Failed):
            outstanding.discard(reply.id)

    device.start()
    for number in range(operations):
        what = chance.random()
        if what < 0.1:
            version = chance.randrange(3)
        elif what < 0.25 and outstanding:
            victim = chance.choice(sorted(outstanding))
            cancelled.add(victim)
            outstanding.discard(victim)
            device.post(Cancel(victim))
        elif what < 0.35:
            edits[number] = chance.randrange(3)
            outstanding.add(number)
            device.post(Encode(number, REQUESTS[edits[number]], EDITORS[edits[number]]))
        else:
            questions = [(chance.randrange(6), version) for _ in range(chance.choice([1, 1, 3]))]
            asked[number] = questions
            outstanding.add(number)
            device.post(Generate(number, tuple(world.row(*each) for each in questions)))
        while len(outstanding) > IN_FLIGHT:
            hear()
    while outstanding:
        hear()
    device.stop()
    while not replies.empty():
        heard.append(replies.get())

    assert not device.begun
    del device
    gc.collect()
    assert not any(type(each) is RunningRow for each in gc.get_objects())
    return check(world, heard, asked, edits, cancelled)


def check(
    world: World,
    heard: list[Reply],
    asked: dict[int, list[tuple[int, int]]],
    edits: dict[int, int],
    cancelled: set[int],
) -> int:
    texts: dict[tuple[int, int], str] = defaultdict(str)
    ended, answered = set[int](), 0
    for reply in heard:
        assert reply.id not in ended
        if isinstance(reply, Text):
            texts[reply.id, reply.row] += reply.text
            continue
        if isinstance(reply, Begun | Progress):
            continue
        ended.add(reply.id)
        if isinstance(reply, Failed) and isinstance(reply.error, GenerationCancelled):
            assert reply.id in cancelled
            continue
        assert isinstance(reply, Done), reply
        if reply.id in edits:
            made, expected = reply.result, world.artifacts[edits[reply.id]]
            assert isinstance(made, EditArtifact)
            assert all(torch.equal(made.payload[n], t) for n, t in expected.payload.items())
            continue
        assert isinstance(reply.result, list)
        for row, (result, question) in enumerate(zip(reply.result, asked[reply.id], strict=True)):
            alone = world.alone(*question)
            assert result.token_ids == alone.token_ids
            assert texts[reply.id, row] == result.text == alone.text
            acting = [c.edit_id for c in alone.decision.applied]
            assert [c.edit_id for c in result.decision.applied] == acting
            answered += 1
    assert ended | cancelled == asked.keys() | edits.keys()
    return answered


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_every_answer_is_its_own(world: World, seed: int) -> None:
    play(world, seed, operations=40)


@pytest.mark.slow
def test_two_thousand_of_them(world: World) -> None:
    assert play(world, 2000, operations=2000) > 1000
