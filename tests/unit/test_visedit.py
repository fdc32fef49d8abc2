"""The editor `visedit`: when an expert is fitted, on what, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from editing_core.backbones.batch import PreparedBatch, PromptRow
from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.editors.visedit import VisEdit, shipped_wordings
from editing_core.errors import GenerationCancelled
from editing_core.experts.codec import encode_artifact
from editing_core.heraldry.emblem import emblem_from_seed, stream
from editing_core.heraldry.questions import questions_about
from editing_core.states import EditStates
from editing_core.types import EditRequest
from tests.support.tiny_model import tiny_image

REQUEST = EditRequest(tiny_image(0), "Is the star blue?", "blue")


def with_settings(model: EditableModel, **settings: Any) -> EditableModel:
    """The model with its VisEdit set otherwise."""
    editor = model.editors["visedit"]
    assert isinstance(editor, VisEdit)
    other = VisEdit(
        replace(editor.config, **settings), backbone_fingerprint=editor.backbone_fingerprint
    )
    other.module = editor.module
    return EditableModel(model.backbone, model.router, {"visedit": other})


def test_shipped_wordings_are_many_and_each_its_own() -> None:
    words = shipped_wordings()
    assert len(words) >= 70
    assert len({w.casefold() for w in words}) == len(words)


def test_no_shipped_wording_is_one_that_the_benchmark_asks_in() -> None:
    held_out = {
        wording
        for number in range(200)
        for question in questions_about(
            emblem_from_seed(number, "unseen"), stream("unseen", number, 0, 1)
        )
        for wording in question.held_out_wordings
    }
    assert len(held_out) > 100
    assert not held_out & set(shipped_wordings())


def test_a_fit_is_pure_and_comes_nearer_to_the_target(tiny_model: EditableModel) -> None:
    """A random model cannot be talked into much by its picture alone: the embedded one is."""
    model = with_settings(tiny_model, max_steps=30, turns=1)
    row = GenerationRow(REQUEST.prompt, REQUEST.image)
    base = model.token_logits(row, [1, 2])
    losses: list[float] = []

    def note(step: int, most: int, loss: float) -> None:
        del step, most
        losses.append(loss)

    first, second = (model.encode(REQUEST, editor="visedit", on_progress=note) for _ in range(2))

    assert set(first.payload) == {"place", "write"}
    assert encode_artifact(first) == encode_artifact(second)
    assert torch.equal(model.token_logits(row, [1, 2]), base)
    assert losses[29] < 0.7 * losses[0]


def test_without_steps_nothing_is_fitted(tiny_model: EditableModel) -> None:
    model = with_settings(tiny_model, max_steps=0)
    assert set(model.encode(REQUEST, editor="visedit").payload) == {"source", "anchor"}


@torch.no_grad()
def test_rows_are_other_views_under_other_words_and_the_users_own(
    tiny_model: EditableModel,
) -> None:
    editor = with_settings(tiny_model, turns=8, views=3, wordings=4).editors["visedit"]
    request = replace(REQUEST, rephrases=("Blue, is it?",))
    artifact = tiny_model.encode(request, editor="visedit")
    row = PromptRow(request.prompt, request.image, target_ids=(1, 2))
    batch = tiny_model.backbone.prepare([row])
    states = EditStates(
        tiny_model.backbone.lower(batch, editor.edit_layer)[0],
        batch.rows[0].spans,
        torch.tensor([1, 2]),
        tiny_model.backbone.embed_tokens((1, 2)),
    )
    fit = editor.fit(request, states, artifact)

    assert fit is not None
    assert len(fit.companions) == 8 * (editor.rows_at_once - 1)
    words = {c.prompt for c in fit.companions}
    assert words == {request.prompt, *request.rephrases, *shipped_wordings()[:4]}
    own = sum(c.prompt in (request.prompt, *request.rephrases) for c in fit.companions)
    assert 0.05 * len(fit.companions) < own < 0.3 * len(fit.companions)
    views = {c.image.tobytes() for c in fit.companions}
    assert len(views) == 4
    assert request.image.tobytes() in views


def test_rows_are_prepared_as_their_turn_comes(
    tiny_model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = with_settings(tiny_model, turns=40, settled=2, max_steps=1)
    prepared: list[int] = []
    prepare = model.backbone.prepare

    def counting(rows: Sequence[PromptRow]) -> PreparedBatch:
        prepared.append(len(rows))
        return prepare(rows)

    monkeypatch.setattr(model.backbone, "prepare", counting)
    model.encode(REQUEST, editor="visedit")
    assert len(prepared) < 8


def test_rows_that_are_shown_one_picture_are_run_on_from_it(
    tiny_model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run once or row by row, the losses of a fit are the same ones."""
    model = with_settings(tiny_model, turns=2, max_steps=3, margin=1e9)
    runs: list[int] = []
    together = model.backbone.upper_states_after

    def counting(beginning: Tensor, *rest: Any) -> Tensor:
        runs.append(len(beginning))
        return together(beginning, *rest)

    def losses() -> list[float]:
        told: list[float] = []

        def note(step: int, most: int, loss: float) -> None:
            del step, most
            told.append(loss)

        model.encode(REQUEST, editor="visedit", on_progress=note)
        return told

    monkeypatch.setattr(model.backbone, "upper_states_after", counting)
    once = losses()
    assert runs
    monkeypatch.setattr(type(model.backbone), "has_plain_prefix", False)
    runs.clear()
    assert losses() == pytest.approx(once, rel=1e-3)
    assert not runs


def test_a_fit_can_be_cancelled(tiny_model: EditableModel) -> None:
    model = with_settings(tiny_model, max_steps=50, margin=1e9)
    told: list[int] = []

    def note(step: int, most: int, loss: float) -> None:
        del most, loss
        told.append(step)

    with pytest.raises(GenerationCancelled):
        model.encode(
            REQUEST, editor="visedit", on_progress=note, is_cancelled=lambda: len(told) >= 3
        )
    assert told == [1, 2, 3]
