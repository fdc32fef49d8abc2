"""Questions on the device: who enters when, what each hears, and what one failure leaves alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from app.device.messages import Done, Failed, Generate, Reply, Text
from app.device.rows import Key, RowScheduler
from editing_core.batching.batch import DecodeBatch
from editing_core.batching.beginnings import Beginnings
from editing_core.editable_model import EditableModel
from editing_core.errors import ContextTooLong, NotFinite
from editing_core.generation import GenerationRow
from editing_core.types import GenerationResult, Sampling
from tests.support.tiny_model import tiny_image


class Ears:
    """Hears every reply."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []

    def __call__(self, reply: Reply) -> None:
        self.replies.append(reply)

    def text(self, request: int, row: int = 0) -> str:
        mine = [r for r in self.replies if isinstance(r, Text) and (r.id, r.row) == (request, row)]
        return "".join(each.text for each in mine)

    def results(self, request: int) -> list[GenerationResult]:
        (done,) = [r for r in self.replies if isinstance(r, Done) and r.id == request]
        assert isinstance(done.result, list)
        return done.result

    def errors(self) -> dict[int, Exception]:
        return {r.id: r.error for r in self.replies if isinstance(r, Failed)}

    def ended(self) -> list[int]:
        return [r.id for r in self.replies if isinstance(r, Done | Failed)]


@pytest.fixture
def ears() -> Ears:
    return Ears()


def scheduler(
    model: EditableModel, ears: Ears, *, rows_at_once: int = 32, tokens_at_once: int = 10_000
) -> RowScheduler:
    return RowScheduler(model, ears, rows_at_once=rows_at_once, tokens_at_once=tokens_at_once)


def question(length: int, *, image: int | None = 0, prompt: str = "the") -> GenerationRow:
    picture = None if image is None else tiny_image(image)
    return GenerationRow(prompt, picture, Sampling(max_new_tokens=length))


def ask(rows: RowScheduler, *requests: Sequence[GenerationRow]) -> None:
    for number, each in enumerate(requests):
        rows.add(Generate(number, tuple(each)))


def finish(rows: RowScheduler) -> None:
    while rows.is_busy:
        rows.turn()


def test_every_request_hears_its_own_rows(tiny_model: EditableModel, ears: Ears) -> None:
    requests = [[question(4), question(9, image=1)], [question(2, image=None)], []]
    rows = scheduler(tiny_model, ears)
    ask(rows, *requests)
    finish(rows)

    assert ears.results(2) == []
    for number, request in enumerate(requests):
        expected = tiny_model.generate(request)
        assert [r.token_ids for r in ears.results(number)] == [r.token_ids for r in expected]
        for row, result in enumerate(expected):
            assert ears.text(number, row) == result.text


def test_a_short_question_does_not_wait_for_a_long_one(
    tiny_model: EditableModel, ears: Ears
) -> None:
    rows = scheduler(tiny_model, ears)
    rows.add(Generate(0, (question(40),)))
    for _ in range(5):
        rows.turn()
    rows.add(Generate(1, (question(3, image=1),)))
    for _ in range(3):
        rows.turn()

    assert ears.ended() == [1]
    finish(rows)
    assert ears.ended() == [1, 0]


def test_requests_of_many_rows_let_others_in(tiny_model: EditableModel, ears: Ears) -> None:
    rows = scheduler(tiny_model, ears, rows_at_once=2)
    ask(rows, [question(3) for _ in range(6)], [question(3, image=1)])
    rows.turn()

    assert rows.begun == {0, 1}
    finish(rows)
    assert ears.ended() == [1, 0]


def test_rows_wait_for_room_and_a_large_one_is_alone(tiny_model: EditableModel, ears: Ears) -> None:
    rows = scheduler(tiny_model, ears, tokens_at_once=70)
    ask(rows, [question(30)], [question(30)], [question(100)])
    rows.turn()
    assert rows.begun == {0}
    finish(rows)
    assert ears.ended() == [0, 1, 2]
    assert ears.results(2)[0].completion_tokens > 30


def test_a_cancelled_request_is_heard_of_no_more(tiny_model: EditableModel, ears: Ears) -> None:
    rows = scheduler(tiny_model, ears, rows_at_once=1)
    ask(rows, [question(30)], [question(5)], [question(4)])
    rows.turn()
    rows.cancel(1)
    rows.turn()
    rows.cancel(0)
    rows.cancel(99)
    before = len(ears.replies)
    finish(rows)

    assert {reply.id for reply in ears.replies[before:]} == {2}
    assert ears.ended() == [2]


def test_a_question_that_cannot_be_asked_fails_alone(tiny_model: EditableModel, ears: Ears) -> None:
    rows = scheduler(tiny_model, ears)
    ask(rows, [question(4)], [question(4), question(4, prompt="x " * 500)], [question(3)])
    finish(rows)

    assert Counter(ears.ended()) == Counter([0, 1, 2])
    assert {i: type(error) for i, error in ears.errors().items()} == {1: ContextTooLong}
    assert ears.results(0)[0].token_ids == tiny_model.generate([question(4)])[0].token_ids


def test_a_full_memory_takes_back_what_prompts_begin_with(
    tiny_model: EditableModel, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And then it is tried once more, with nobody the wiser."""
    rows = RowScheduler(
        tiny_model, ears, rows_at_once=8, tokens_at_once=10_000, beginnings_bytes=2**26
    )
    ask(rows, [question(2)])
    finish(rows)
    begin, tries = EditableModel.begin, list[int]()

    def fill(
        model: EditableModel, prepared: Any, rows: Any, *, beginnings: Beginnings
    ) -> DecodeBatch[Key]:
        tries.append(beginnings.nbytes)
        if beginnings.nbytes:
            raise torch.OutOfMemoryError("the device is full")
        return begin(model, prepared, rows, beginnings=beginnings)

    monkeypatch.setattr(EditableModel, "begin", fill)
    rows.add(Generate(7, (question(3),)))
    finish(rows)
    assert not ears.errors()
    assert len(tries) == 2
    assert tries[0] > tries[1] == 0
    (result,) = ears.results(7)
    assert result.token_ids == tiny_model.generate([question(3)])[0].token_ids


def test_what_fails_at_prefill_is_told_apart(
    tiny_model: EditableModel, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = EditableModel.begin

    def refuse(
        model: EditableModel, prepared: Any, rows: dict[Key, GenerationRow], **more: Any
    ) -> Any:
        if any(request == 1 for request, _ in rows):
            raise RuntimeError("the row of request 1")
        return begin(model, prepared, rows, **more)

    monkeypatch.setattr(EditableModel, "begin", refuse)
    rows = scheduler(tiny_model, ears)
    ask(rows, [question(4)], [question(4)], [question(3)])
    finish(rows)

    assert set(ears.errors()) == {1}
    assert [len(ears.results(number)) for number in (0, 2)] == [1, 1]


def test_a_step_that_fails_ends_all_its_rows_and_no_later_one(
    tiny_model: EditableModel, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = scheduler(tiny_model, ears)
    ask(rows, [question(9)], [question(9, image=1)])
    rows.turn()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the device is on fire")

    with monkeypatch.context() as patch:
        patch.setattr(type(tiny_model.backbone), "decode", fail)
        rows.turn()
    assert set(ears.errors()) == {0, 1}
    assert not rows.is_busy
    rows.add(Generate(2, (question(4),)))
    finish(rows)
    assert ears.results(2)[0].token_ids == tiny_model.generate([question(4)])[0].token_ids


def test_one_row_without_numbers_fails_alone(
    tiny_model: EditableModel, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = scheduler(tiny_model, ears)
    ask(rows, [question(9)], [question(9, image=1)])
    rows.turn()
    backbone = type(tiny_model.backbone)
    decode = backbone.decode

    def broken(self: object, *arguments: object, **more: object) -> torch.Tensor:
        logits: torch.Tensor = decode(self, *arguments, **more)  # type: ignore[arg-type]
        logits[0] = torch.nan
        return logits

    with monkeypatch.context() as patch:
        patch.setattr(backbone, "decode", broken)
        rows.turn()
    finish(rows)
    assert {i: type(error) for i, error in ears.errors().items()} == {0: NotFinite}
    alone = tiny_model.generate([question(9, image=1)])[0]
    assert ears.results(1)[0].token_ids == alone.token_ids


def test_a_model_whose_rows_do_not_join_answers_them_apart(
    tiny_model: EditableModel, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_model, "rows_join", False)
    rows = scheduler(tiny_model, ears)
    ask(rows, [question(6)], [question(3, image=1)])
    rows.turn()
    assert rows.begun == {0, 1}
    finish(rows)
    for number, image, length in ((0, 0, 6), (1, 1, 3)):
        alone = tiny_model.generate([question(length, image=image)])[0]
        assert ears.results(number)[0].token_ids == alone.token_ids
