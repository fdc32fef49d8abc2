"""What is kept of prompts' beginnings changes no answer, whoever asked before, whatever acted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from editing_core.batching.beginnings import Beginnings
from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.types import EditRequest, GenerationResult, Sampling, Turn
from tests.support.batching import Driver
from tests.support.tiny_model import tiny_image

PLENTY = 2**26
PICTURE = tiny_image(0)
PROMPTS = ("the", "no", "q", "is it")


def row(prompt: str, snapshot: Snapshot | None = None) -> GenerationRow:
    return GenerationRow(prompt, PICTURE, Sampling(max_new_tokens=6), snapshot)


def edit(model: EditableModel, editor: str, prompt: str = "the") -> Snapshot:
    request = EditRequest(PICTURE, prompt, "the blue")
    entry = MemoryEntry.of(
        editor, model.encode(request, editor=editor), request, image_digest="sha256:i"
    )
    return model.empty_snapshot().evolve(1, activate=[entry])


def ask(driver: Driver, *rows: GenerationRow) -> list[GenerationResult]:
    """The rows entered together, and run to their ends."""
    first = len(driver.results)
    driver.enter(dict(enumerate(rows, first)))
    driver.finish()
    return [driver.results[i] for i in range(first, first + len(rows))]


def assert_as_alone(model: EditableModel, row: GenerationRow, found: GenerationResult) -> None:
    (alone,) = model.generate([row])
    assert found.token_ids == alone.token_ids
    assert [c.edit_id for c in found.decision.applied] == [
        c.edit_id for c in alone.decision.applied
    ]


def test_later_questions_and_those_that_come_together_run_a_picture_once(
    tiny_model: EditableModel,
) -> None:
    driver = Driver(tiny_model, Beginnings(PLENTY))
    rows = [row(prompt) for prompt in PROMPTS]
    one, *others = ask(driver, *rows)
    assert one.cached_tokens == 0
    assert all(result.cached_tokens for result in others)
    (again,) = ask(driver, row("another"))
    assert again.cached_tokens
    for each, result in zip(rows, (one, *others), strict=True):
        assert_as_alone(tiny_model, each, result)


@pytest.mark.parametrize("editor", ["liveedit", "visedit", "liveedit-paper", "fitted"])
def test_edited_and_unedited_rows_share_what_no_expert_changes(
    tiny_model: EditableModel, editor: str
) -> None:
    """Whatever positions the editor's experts act on: nobody's answer has another's edits in it."""
    snapshot = edit(tiny_model, editor)
    driver = Driver(tiny_model, Beginnings(PLENTY))
    for turn in range(2):
        for active in (snapshot, None, snapshot):
            (found,) = ask(driver, row("the", active))
            assert_as_alone(tiny_model, row("the", active), found)
            assert bool(found.decision.applied) is (active is not None)
        mixed = [row("the", snapshot), row("the"), row("no", snapshot), row("q")]
        for each, found in zip(mixed, ask(driver, *mixed), strict=True):
            assert_as_alone(tiny_model, each, found)
            acts_early = each.snapshot is not None and bool(found.decision.applied)
            is_whole = acts_early and editor in ("visedit", "liveedit-paper")
            assert bool(found.cached_tokens) is not is_whole, turn


def test_another_version_of_the_memory_is_another_answer_of_the_same_beginning(
    tiny_model: EditableModel,
) -> None:
    snapshot = edit(tiny_model, "liveedit")
    without = snapshot.evolve(2, deactivate=["liveedit"])
    driver = Driver(tiny_model, Beginnings(PLENTY))
    for version in (snapshot, without, snapshot):
        (found,) = ask(driver, row("the", version))
        assert_as_alone(tiny_model, row("the", version), found)
        assert bool(found.decision.applied) is (version is snapshot)


def test_another_picture_has_another_beginning(tiny_model: EditableModel) -> None:
    driver = Driver(tiny_model, Beginnings(PLENTY))
    ask(driver, row("the"))
    other = replace(row("the"), image=tiny_image(1))
    (found,) = ask(driver, other)
    assert found.cached_tokens == 0
    assert_as_alone(tiny_model, other, found)


def test_a_conversation_goes_on_from_its_picture(tiny_model: EditableModel) -> None:
    turns = (Turn("user", "is", (PICTURE,)), Turn("assistant", "no"), Turn("user", "the"))
    talk = replace(row("the", edit(tiny_model, "liveedit")), turns=turns)
    driver = Driver(tiny_model, Beginnings(PLENTY))
    ask(driver, row("q"))
    (found,) = ask(driver, talk)
    assert found.cached_tokens
    assert found.decision.applied
    assert_as_alone(tiny_model, talk, found)


def test_the_memory_is_bounded_and_can_be_given_back(tiny_model: EditableModel) -> None:
    all_of_it = Beginnings(PLENTY)
    ask(Driver(tiny_model, all_of_it), row("the"))
    size = all_of_it.nbytes
    assert size
    all_of_it.clear()
    assert all_of_it.nbytes == 0

    two = Beginnings(2 * size)
    driver = Driver(tiny_model, two)
    for picture in (0, 1, 2, 0):
        (found,) = ask(driver, replace(row("the"), image=tiny_image(picture)))
        assert found.cached_tokens == 0
        assert two.nbytes <= 2 * size

    too_small = Beginnings(size - 1)
    driver = Driver(tiny_model, too_small)
    for _ in range(2):
        (found,) = ask(driver, row("the"))
        assert found.cached_tokens == 0
    assert too_small.nbytes == 0
