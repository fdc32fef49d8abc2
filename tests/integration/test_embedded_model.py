"""The model that ships, edited: what holds, what is left alone, and the base model's own bits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from editing_core.editable_model import EditableModel
from editing_core.editors.visedit import VisEdit
from editing_core.evaluation.base_model import Sizes, evaluate_base_model
from editing_core.evaluation.edit_cases import EditCase, edit_cases
from editing_core.evaluation.edit_protocol import UNFINISHED, figures_of, run_protocol
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.generation import GenerationRow
from editing_core.heraldry.sample import draw_sample
from editing_core.types import EditRequest, ImageArray, Turn

EDITS = 20


class Bench:
    """Edits and questions on a model in this process."""

    def __init__(self, model: EditableModel, editor: str = "liveedit") -> None:
        self._model, self._editor = model, editor
        self.snapshot: Snapshot = model.empty_snapshot()

    def edit(self, image: ImageArray, prompt: str, target: str) -> bool:
        artifact = self._model.encode(EditRequest(image, prompt, target), editor=self._editor)
        version = self.snapshot.version + 1
        entry = MemoryEntry(f"e{version}", artifact, f"sha256:{version}", prompt)
        self.snapshot = self.snapshot.evolve(version, activate=[entry])
        return True

    def ask(self, image: ImageArray | None, prompt: str, with_edits: bool) -> str:
        snapshot = self.snapshot if with_edits else None
        (result,) = self._model.generate([GenerationRow(prompt, image, snapshot=snapshot)])
        return result.text + ("" if result.finish_reason == "stop" else UNFINISHED)


@pytest.fixture(scope="module")
def cases() -> list[EditCase]:
    return list(edit_cases(EDITS, seed=7))


@pytest.fixture(scope="module")
def edited(embedded_model: EditableModel, cases: list[EditCase]) -> Snapshot:
    bench = Bench(embedded_model)
    for case in cases:
        bench.edit(case.image, case.prompt, case.target)
    return bench.snapshot


def test_the_model_sees_knows_and_tells_emblems_apart(embedded_model: EditableModel) -> None:
    figures = {f.name: f.value for f in evaluate_base_model(embedded_model, Sizes(20, 20, 20, 100))}
    assert figures["perception, unseen emblems"] >= 0.95
    assert figures["knowledge, new views of known emblems"] >= 0.95
    assert figures["text only, facts by name"] >= 0.95
    assert figures["image key recall@1"] >= 0.99


def test_edits_hold_and_leave_the_rest_alone(
    embedded_model: EditableModel, cases: list[EditCase]
) -> None:
    bench = Bench(embedded_model)
    outcomes = run_protocol(cases, edit=bench.edit, ask=bench.ask)
    figures = {figure.name: figure.value for figure in figures_of(outcomes, {})}
    assert figures["unedited model gives the target"] <= 0.1
    assert figures["reliability"] >= 0.95
    assert figures["text generality"] >= 0.85
    assert figures["image generality"] >= 0.85
    assert figures["text locality"] == 1.0
    assert figures["image locality"] >= 0.95


def test_edits_hold_in_conversations(
    embedded_model: EditableModel, cases: list[EditCase], edited: Snapshot
) -> None:
    """Routed as if asked alone, and answered by the expert, whatever was said before."""
    told = []
    for case in cases[:8]:
        talk = (
            Turn("system", "You are a helpful assistant."),
            Turn("user", "What is this?", (case.image,)),
            Turn("assistant", "an emblem"),
            Turn("user", case.prompt),
        )
        rows = [
            GenerationRow(case.prompt, case.image, snapshot=edited, turns=turns)
            for turns in ((), talk)
        ]
        alone, among = embedded_model.generate(rows)
        assert among.decision == alone.decision
        told.append(among.text == case.target)
    assert sum(told) >= 7


def test_a_request_that_no_edit_matches_keeps_the_base_models_bits(
    embedded_model: EditableModel, edited: Snapshot
) -> None:
    bystander = draw_sample(4321)
    for question in bystander.questions[:4]:
        prompt, image = question.wordings[0], bystander.picture.image
        (answer,) = embedded_model.generate([GenerationRow(prompt, image, snapshot=edited)])
        assert answer.decision.applied == ()
        ids = answer.token_ids
        with_edits = embedded_model.token_logits(GenerationRow(prompt, image, snapshot=edited), ids)
        without = embedded_model.token_logits(GenerationRow(prompt, image), ids)
        assert torch.equal(with_edits, without)


def test_a_text_only_request_keeps_the_base_models_bits(
    embedded_model: EditableModel, edited: Snapshot, cases: list[EditCase]
) -> None:
    row = GenerationRow(cases[0].prompt, None, snapshot=edited)
    (answer,) = embedded_model.generate([row])
    assert answer.decision.candidates == ()
    with_edits = embedded_model.token_logits(row, answer.token_ids)
    without = embedded_model.token_logits(GenerationRow(cases[0].prompt, None), answer.token_ids)
    assert torch.equal(with_edits, without)


@pytest.mark.parametrize("editor", ["liveedit", "liveedit-paper", "visedit"])
def test_cached_decoding_is_the_teacher_forced_edited_forward(
    embedded_model: EditableModel, cases: list[EditCase], editor: str
) -> None:
    bench = Bench(embedded_model, editor)
    for case in cases[:3]:
        bench.edit(case.image, case.prompt, case.target)
    applied = 0
    for case in cases[:3]:
        row = GenerationRow(case.prompt, case.image, snapshot=bench.snapshot)
        (answer,) = embedded_model.generate([row])
        applied += len(answer.decision.applied)
        logits = embedded_model.token_logits(row, answer.token_ids)
        assert logits.argmax(-1).tolist() == list(answer.token_ids)
    assert applied >= 2


def test_rolled_back_edits_leave_no_trace(
    embedded_model: EditableModel, edited: Snapshot, cases: list[EditCase]
) -> None:
    case = cases[0]
    emptied = edited.evolve(edited.version + 1, deactivate=list(edited.entries))
    row = GenerationRow(case.prompt, case.image)
    (before,) = embedded_model.generate([row])
    (after,) = embedded_model.generate([GenerationRow(case.prompt, case.image, snapshot=emptied)])
    assert after.token_ids == before.token_ids
    assert after.decision.candidates == ()


@pytest.mark.parametrize(
    "target",
    ["Москва", "红色的星星", "one two one two one two", "no", "Vinmark and Broweanby"],
)
def test_targets_of_every_kind_are_learned_at_once(
    embedded_model: EditableModel, target: str
) -> None:
    sample = draw_sample(77)
    bench = Bench(embedded_model)
    prompt = sample.questions[0].wordings[0]
    bench.edit(sample.picture.image, prompt, target)
    assert bench.ask(sample.picture.image, prompt, True) == target


def test_a_visual_expert_is_fitted_to_say_what_its_adapter_cannot(
    embedded_model: EditableModel,
) -> None:
    sample, other_view = draw_sample(77), draw_sample(77, view=3)
    question, target = sample.questions[0], "白色的门"
    bench = Bench(embedded_model, "visedit")
    bench.edit(sample.picture.image, question.wordings[0], target)

    artifact = bench.snapshot.entries["e1"].artifact
    assert set(artifact.payload) == {"place", "write"}
    assert bench.ask(sample.picture.image, question.wordings[0], True) == target
    assert bench.ask(other_view.picture.image, question.held_out_wordings[0], True) == target


def test_a_visual_expert_that_holds_is_not_fitted(embedded_model: EditableModel) -> None:
    trained = embedded_model.editors["visedit"]
    assert isinstance(trained, VisEdit)
    # One view and one question: an answer of this world the adapter brings about by itself.
    easy = replace(trained.config, views=0, wordings=0, turns=1, margin=0.0)
    editor = VisEdit(easy, backbone_fingerprint=trained.backbone_fingerprint)
    editor.module = trained.module
    model = EditableModel(embedded_model.backbone, embedded_model.router, {"visedit": editor})
    sample = draw_sample(77)
    question = next(q for q in sample.questions if q.kind == "place")
    request = EditRequest(sample.picture.image, question.wordings[0], question.alternatives[0])
    assert set(model.encode(request, editor="visedit").payload) == {"source", "anchor"}
