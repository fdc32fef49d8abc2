"""Rows that come and go while others decode answer as they do alone."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook
from transformers.cache_utils import Cache, DynamicLayer, LinearAttentionLayer

from editing_core.batching.cache import can_join
from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.errors import NotFinite
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.generation import Writer
from editing_core.types import EditRequest, GenerationResult, Sampling
from tests.support.batching import Driver
from tests.support.tiny_model import tiny_image

PROMPTS = ("q", "Is the star blue?", "the the the", "What is this? " * 3)
TARGETS = ("the blue", "is", "no", "b lu the")


@pytest.fixture(scope="module")
def edited(tiny_model: EditableModel) -> Snapshot:
    """An edit for each of four pictures, by four editors."""
    editors = ("liveedit", "fitted", "liveedit-paper", "visedit")
    entries = [
        MemoryEntry(
            f"e{i}",
            tiny_model.encode(EditRequest(tiny_image(i), prompt, target), editor=editor),
            image_digest=f"sha256:{i}",
            prompt=prompt,
        )
        for i, (prompt, target, editor) in enumerate(zip(PROMPTS, TARGETS, editors, strict=True))
    ]
    return tiny_model.empty_snapshot().evolve(1, activate=entries)


def rows_of(snapshot: Snapshot | None) -> list[GenerationRow]:
    """Questions with and without a picture, edits and sampling, some short and some long."""
    return [
        GenerationRow(
            PROMPTS[i % 4],
            None if i % 5 == 4 else tiny_image(i % 4),
            Sampling(
                max_new_tokens=(3, 17, 8)[i % 3],
                temperature=1.0 if i % 7 == 6 else 0.0,
                seed=i,
            ),
            snapshot if i % 3 else None,
        )
        for i in range(12)
    ]


def alone(model: EditableModel, row: GenerationRow) -> GenerationResult:
    return model.generate([row])[0]


def assert_same(found: GenerationResult, expected: GenerationResult) -> None:
    assert found.token_ids == expected.token_ids
    assert (found.text, found.finish_reason) == (expected.text, expected.finish_reason)
    assert found.prompt_tokens == expected.prompt_tokens
    acting = [c.edit_id for c in found.decision.applied]
    assert acting == [c.edit_id for c in expected.decision.applied]


def test_rows_that_join_and_leave_answer_as_alone(
    tiny_model: EditableModel, edited: Snapshot
) -> None:
    driver, rows = Driver(tiny_model), rows_of(edited)
    driver.enter({0: rows[0], 1: rows[1]})
    driver.step(2)
    driver.enter({2: rows[2]})
    driver.step(4)
    driver.enter({i: rows[i] for i in range(3, 9)})
    driver.step(1)
    driver.enter({i: rows[i] for i in range(9, 12)})
    results = driver.finish()

    assert sum(bool(result.decision.applied) for result in results.values()) > 4
    for i, row in enumerate(rows):
        assert_same(results[i], alone(tiny_model, row))


def test_a_row_that_is_dropped_changes_no_other(
    tiny_model: EditableModel, edited: Snapshot
) -> None:
    driver, rows = Driver(tiny_model), rows_of(edited)
    driver.enter(dict(enumerate(rows[:6])))
    assert driver.batch is not None
    driver.batch.drop({1, 99})
    driver.step(1)
    driver.batch.drop({4})
    results = driver.finish()

    assert set(results) == {0, 2, 3, 5}
    for i in results:
        assert_same(results[i], alone(tiny_model, rows[i]))


def test_without_an_edited_row_no_hook_exists(tiny_model: EditableModel, edited: Snapshot) -> None:
    rows = rows_of(edited)
    driver, hooked = Driver(tiny_model), list[int]()
    layers = list(tiny_model.backbone.layers)

    def count(module: torch.nn.Module, *_: object) -> None:
        if module in layers:
            hooked.append(len(module._forward_hooks))

    driver.enter({0: rows[0], 1: rows[1]})
    handle = register_module_forward_hook(count)
    try:
        driver.step()
        assert any(hooked)
        assert driver.batch is not None
        driver.batch.drop({1})
        hooked.clear()
        driver.step()
    finally:
        handle.remove()
    assert hooked
    assert not any(hooked)


def test_numbers_that_are_none_end_one_row(
    tiny_model: EditableModel, edited: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(edited)
    driver = Driver(tiny_model)
    driver.enter({1: rows[1], 4: rows[4], 7: rows[7]})
    decode = type(tiny_model.backbone).decode

    def broken(self: object, *args: object, **more: object) -> torch.Tensor:
        logits: torch.Tensor = decode(self, *args, **more)  # type: ignore[arg-type]
        logits[1] = torch.nan
        return logits

    with monkeypatch.context() as patch:
        patch.setattr(type(tiny_model.backbone), "decode", broken)
        driver.step()
    results = driver.finish()
    assert set(driver.errors) == {4}
    assert isinstance(driver.errors[4], NotFinite)
    for i in (1, 7):
        assert_same(results[i], alone(tiny_model, rows[i]))


def test_what_choosing_a_token_raises_ends_one_row(
    tiny_model: EditableModel, edited: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(edited)
    take, taken = Writer.take, Counter[Writer]()

    def refuse(self: Writer, logits: torch.Tensor) -> tuple[int, str]:
        taken[self] += 1
        if len(taken) == 2 and list(taken)[1] is self and taken[self] == 2:
            raise LookupError("no token is allowed here")
        return take(self, logits)

    monkeypatch.setattr(Writer, "take", refuse)
    driver = Driver(tiny_model)
    driver.enter({1: rows[1]})
    driver.enter({7: rows[7]})
    results = driver.finish()
    monkeypatch.undo()
    assert set(driver.errors) == {7}
    assert_same(results[1], alone(tiny_model, rows[1]))


def test_a_cache_of_more_than_keys_and_values_is_said_not_to_join(
    tiny_model: EditableModel,
) -> None:
    assert tiny_model.rows_join
    assert not can_join(Cache(layers=[DynamicLayer(), LinearAttentionLayer()]))
