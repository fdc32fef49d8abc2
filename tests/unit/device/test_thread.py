"""Edits and questions share one thread: edits are made between steps, and streams go on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from app.device.messages import (
    Attribute,
    Cancel,
    Decide,
    Done,
    Encode,
    Failed,
    Generate,
    Look,
    Progress,
    Reply,
    Rescope,
    Screen,
    Text,
    Validate,
)
from app.device.thread import PASS_TOKENS, DeviceThread
from editing_core.editable_model import EditableModel
from editing_core.errors import GenerationCancelled
from editing_core.generation import GenerationRow
from editing_core.types import EditRequest, Sampling, Wordings
from tests.support.edits import snapshot_with
from tests.support.tiny_model import tiny_image

DEADLINE_S = 120
REQUEST = EditRequest(tiny_image(0), "q", "blue")


class Desk:
    """The other side of a device thread."""

    def __init__(self, model: EditableModel) -> None:
        self.replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        self.order: list[Reply] = []
        self.thread = DeviceThread(model, self.replies.put, rows_at_once=8, tokens_at_once=4000)

    def last(self, request: int) -> Done | Failed:
        """Its last reply; what comes meanwhile is kept in `order`."""
        while True:
            for reply in self.order:
                if reply.id == request and isinstance(reply, Done | Failed):
                    return reply
            self.order.append(self.replies.get(timeout=DEADLINE_S))

    def result(self, request: int) -> Any:
        reply = self.last(request)
        assert isinstance(reply, Done), reply
        return reply.result


@pytest.fixture
def desk(tiny_model: EditableModel) -> Iterator[Desk]:
    desk = Desk(tiny_model)
    desk.thread.start()
    yield desk
    desk.thread.stop()
    assert not desk.thread.is_alive


class Stages:
    """An `encode` of as many passes as the test wants, each of which it waits for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.asked = threading.Semaphore(0)
        encode = EditableModel.encode

        def slowly(model: EditableModel, request: EditRequest, **more: Any) -> Any:
            with torch.enable_grad():
                while True:
                    self.asked.release()
                    if not self.passes.get(timeout=DEADLINE_S):
                        break
                    if more["is_cancelled"]():
                        raise GenerationCancelled("cancelled between two passes")
                    more["on_progress"](1, 3, 0.5)
            return encode(model, request, **more)

        monkeypatch.setattr(EditableModel, "encode", slowly)

    def wait_for_pass(self) -> None:
        assert self.asked.acquire(timeout=DEADLINE_S)


def test_tasks_and_questions_come_to_what_the_model_itself_gives(
    desk: Desk, tiny_model: EditableModel
) -> None:
    row = GenerationRow("the", tiny_image(1), Sampling(max_new_tokens=9))
    desk.thread.post(Generate(1, (row,)))
    desk.thread.post(Encode(2, REQUEST, "liveedit"))
    desk.thread.post(Look(3, tiny_image(2)))
    desk.thread.post(Attribute(4, tiny_image(2), "q", 0))

    made, alone = desk.result(2), tiny_model.encode(REQUEST)
    assert all(torch.equal(made.payload[name], alone.payload[name]) for name in alone.payload)
    assert (desk.result(3).image == tiny_model.image_key(tiny_image(2))).all()
    assert desk.result(1) == tiny_model.generate([row])
    assert len(desk.result(4).layers) == tiny_model.backbone.num_layers
    desk.thread.post(Rescope(5, made, REQUEST))
    assert desk.result(5).key.image.tolist() == made.key.image.tolist()


def test_questions_are_answered_between_two_passes_of_an_edit(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = Stages(monkeypatch)
    desk.thread.post(Encode(1, REQUEST, "liveedit"))
    stages.wait_for_pass()
    row = GenerationRow("the", tiny_image(1), Sampling(max_new_tokens=5))
    desk.thread.post(Generate(2, (row,)))
    desk.thread.post(Look(3, tiny_image(2)))
    desk.thread.post(Encode(4, REQUEST, "liveedit"))
    for _ in range(5):  # a turn at least after each
        stages.passes.put(True)
        stages.wait_for_pass()
    stages.passes.put(False)
    stages.wait_for_pass()  # the second edit's
    stages.passes.put(False)

    assert isinstance(desk.last(4), Done)
    ends = [reply.id for reply in desk.order if isinstance(reply, Done)]
    assert ends == [3, 2, 1, 4] or ends == [2, 3, 1, 4]
    assert any(isinstance(reply, Progress) and reply.id == 1 for reply in desk.order)


def test_rows_of_an_edit_come_to_the_same_behind_those_of_people(
    desk: Desk, tiny_model: EditableModel
) -> None:
    """A question that comes after them, and has as many tokens to say, is answered first."""
    sampling = Sampling(
        max_new_tokens=40, logit_bias=tuple((i, -100.0) for i in tiny_model.backbone.stop_token_ids)
    )
    edits = tuple(GenerationRow("the", tiny_image(i), sampling) for i in range(6))
    question = GenerationRow("Is the star blue?", tiny_image(1), sampling)
    desk.thread.post(Generate(1, edits, for_edit=True))
    desk.thread.post(Generate(2, (question,)))

    assert [r.token_ids for r in desk.result(1)] == [
        tiny_model.generate([row])[0].token_ids for row in edits
    ]
    assert desk.result(2) == tiny_model.generate([question])
    assert [reply.id for reply in desk.order if isinstance(reply, Done)] == [2, 1]


def test_what_an_edit_wants_to_know_is_what_the_model_says(
    desk: Desk, tiny_model: EditableModel
) -> None:
    snapshot = snapshot_with(tiny_model, tiny_image(0), "q", "blue")
    rows = tuple(GenerationRow("q", tiny_image(i), snapshot=snapshot) for i in range(3))
    desk.thread.post(Decide(1, rows))
    desk.thread.post(Screen(2, ("q", "r"), (Wordings(("q",)),)))
    desk.thread.post(Generate(3, (replace(rows[0], guess="blue"),), for_edit=True))
    desk.thread.post(Decide(4, rows))
    desk.thread.post(Cancel(4))

    decided, may, (answered,) = (desk.result(request) for request in (1, 2, 3))
    desk.thread.stop()  # the model is used by one thread at a time
    assert decided == tiny_model.decide(rows, tokens_at_once=PASS_TOKENS)
    assert may == tiny_model.may_mean(("q", "r"), (Wordings(("q",)),))
    assert answered.token_ids == tiny_model.generate([rows[0]])[0].token_ids


def test_cancelling_ends_an_edit_before_its_next_pass(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = Stages(monkeypatch)
    desk.thread.post(Encode(1, REQUEST, "liveedit"))
    desk.thread.post(Encode(2, REQUEST, "liveedit"))
    stages.wait_for_pass()
    desk.thread.post(Cancel(2))
    desk.thread.post(Cancel(1))
    stages.passes.put(True)

    failed = desk.last(1)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, GenerationCancelled)
    desk.thread.post(Look(3, tiny_image(2)))
    desk.result(3)
    assert 2 not in {reply.id for reply in desk.order}
    assert desk.thread.begun == frozenset()


def test_what_is_queued_is_finished_before_it_stops(tiny_model: EditableModel) -> None:
    desk = Desk(tiny_model)
    desk.thread.start()
    rows = tuple(GenerationRow("the", None, Sampling(max_new_tokens=n)) for n in (2, 20))
    desk.thread.post(Generate(1, rows))
    desk.thread.post(Encode(2, REQUEST, "liveedit"))
    desk.thread.stop()
    desk.thread.stop()

    assert not desk.thread.is_alive
    assert len(desk.result(1)) == 2
    desk.result(2)
    assert any(isinstance(reply, Text) for reply in desk.order)


def test_what_cannot_be_encoded_is_told_whatever_the_device_does(desk: Desk) -> None:
    desk.thread.post(Validate(0, REQUEST, "nobody"))
    desk.thread.post(Encode(1, REQUEST, "nobody"))
    for request in (0, 1):
        failed = desk.last(request)
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, LookupError)
        assert "nobody" in str(failed.error)
