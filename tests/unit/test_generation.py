"""Sampling, stopping and streaming, on a tiny model."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from editing_core.choosing import sample
from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.types import GenerationResult, Sampling
from tests.support.edits import snapshot_with
from tests.support.tiny_model import tiny_image

IMAGE = tiny_image(0)


def generate(model: EditableModel, sampling: Sampling, *prompts: str) -> list[GenerationResult]:
    rows = [GenerationRow(prompt, IMAGE, sampling) for prompt in prompts or ("the",)]
    deltas: dict[int, list[str]] = {b: [] for b in range(len(rows))}
    results = model.generate(rows, on_tokens=lambda b, delta: deltas[b].append(delta))
    for b, result in enumerate(results):
        assert "".join(deltas[b]) == result.text == result.text.strip()
        assert "" not in deltas[b]
        assert result.completion_tokens == len(result.token_ids)
    return results


def test_greedy_is_repeatable_and_ends_at_the_limit(tiny_model: EditableModel) -> None:
    first, second = (generate(tiny_model, Sampling(max_new_tokens=7))[0] for _ in range(2))
    assert first == second
    assert first.finish_reason == "length"
    assert first.completion_tokens == 7
    assert first.text == tiny_model.backbone.text_of(first.token_ids)


def test_rows_end_each_in_its_own_time(tiny_model: EditableModel) -> None:
    counts = (1, 9, 4)
    rows = [GenerationRow("the", IMAGE, Sampling(max_new_tokens=n)) for n in counts]
    results = tiny_model.generate(rows)
    assert [len(result.token_ids) for result in results] == list(counts)
    longest = results[1].token_ids
    assert all(result.token_ids == longest[: len(result.token_ids)] for result in results)


def test_the_stop_token_ends_a_row_and_is_counted(tiny_model: EditableModel) -> None:
    """An edit is there to make the model say something and then stop: at temperature 5 it does."""
    stop = tiny_model.backbone.stop_token_ids
    for seed in range(200):
        sampling = Sampling(max_new_tokens=60, temperature=5.0, seed=seed)
        result = generate(tiny_model, sampling)[0]
        if result.finish_reason == "stop":
            assert result.token_ids[-1] in stop
            assert not set(stop) & set(result.token_ids[:-1])
            assert "<|end|>" not in result.text
            return
    pytest.fail("no seed reached the stop token")


def test_a_seed_repeats_itself_whatever_the_batch(tiny_model: EditableModel) -> None:
    sampling = Sampling(max_new_tokens=12, temperature=1.0, top_p=0.9, seed=3)
    alone = generate(tiny_model, sampling)[0]
    batched = generate(tiny_model, sampling, "the", "Is it?", "the")
    assert batched[0].token_ids == batched[2].token_ids == alone.token_ids
    other = generate(tiny_model, Sampling(max_new_tokens=12, temperature=1.0, seed=4))[0]
    assert other.token_ids != alone.token_ids


def test_without_a_seed_each_time_is_new(tiny_model: EditableModel) -> None:
    sampling = Sampling(max_new_tokens=20, temperature=3.0)
    first, second = (generate(tiny_model, sampling)[0] for _ in range(2))
    assert first.token_ids != second.token_ids


def test_seeds_of_any_size_are_taken(tiny_model: EditableModel) -> None:
    for seed in (0, -1, 2**63, 2**64 + 5):
        generate(tiny_model, Sampling(max_new_tokens=2, temperature=1.0, seed=seed))


def test_a_stop_string_ends_a_row_before_it(tiny_model: EditableModel) -> None:
    whole = generate(tiny_model, Sampling(max_new_tokens=40))[0].text
    for at in range(1, len(whole) - 1):
        stop = whole[at : at + 2]
        if "\ufffd" in stop or stop != stop.strip():
            continue
        result = generate(tiny_model, Sampling(max_new_tokens=40, stop=(stop, "never")))[0]
        assert result.finish_reason == "stop"
        assert result.text == whole[: whole.index(stop)].strip()


def test_an_edited_row_streams_too(tiny_model: EditableModel) -> None:
    active = snapshot_with(tiny_model, IMAGE, "the", "Ж🙂 the")
    row = GenerationRow("the", IMAGE, Sampling(max_new_tokens=15), active)
    deltas: list[str] = []
    result = tiny_model.generate([row], on_tokens=lambda _, delta: deltas.append(delta))[0]
    assert "".join(deltas) == result.text


LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def draw(sampling: Sampling, count: int = 2000) -> Counter[int]:
    random = torch.Generator().manual_seed(0)
    return Counter(sample(LOGITS, sampling, random) for _ in range(count))


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    drawn = draw(Sampling(temperature=1.0))
    assert [drawn[i] / 2000 for i in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.04)


@pytest.mark.parametrize(
    ("top_p", "allowed"), [(1.0, 4), (0.96, 4), (0.94, 3), (0.8, 2), (0.5, 1), (1e-9, 1)]
)
def test_top_p_keeps_the_fewest_tokens_that_hold_it(top_p: float, allowed: int) -> None:
    assert set(draw(Sampling(temperature=1.0, top_p=top_p))) == set(range(allowed))


def test_temperature_sharpens_and_flattens() -> None:
    assert set(draw(Sampling(temperature=1e-6))) == {0}
    hot = draw(Sampling(temperature=100.0))
    assert min(hot[i] for i in range(4)) > 400
