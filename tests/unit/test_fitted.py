"""The editor `fitted`: what it measures, what it sees, and how an edit is made of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from editing_core.backbones.batch import PromptRow
from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.editors.fitted import TEMPLATES, Fitted
from editing_core.editors.other_words import ANY_QUESTIONS, other_words
from editing_core.errors import GenerationCancelled
from editing_core.experts.codec import decode_artifact, encode_artifact
from editing_core.experts.memory import MemoryEntry
from editing_core.experts.slots import SlotExpert
from editing_core.experts.whitening import Whitening
from editing_core.types import EditRequest
from tests.support.edits import snapshot_with
from tests.support.tiny_model import tiny_image, tiny_rows

REQUEST = EditRequest(tiny_image(0), "Is the star blue?", "the blue")


@pytest.fixture(scope="module")
def editor(tiny_model: EditableModel) -> Fitted:
    found = tiny_model.editors["fitted"]
    assert isinstance(found, Fitted)
    return found


def rows(count: int, hidden: int = 12) -> torch.Tensor:
    """Behind one template: a large common part, a few directions that vary, and noise."""
    random = torch.Generator().manual_seed(0)
    common = 20.0 * torch.randn(hidden, generator=random)
    directions = torch.randn(2, hidden, generator=random)
    varying = torch.randn(count, 2, generator=random) * torch.tensor([9.0, 4.0]) @ directions
    return common + varying + torch.randn(count, hidden, generator=random)


def test_whitening_tells_apart_what_looks_alike() -> None:
    whitening = Whitening(12, rank=4)
    seen = rows(400)
    alike = torch.nn.functional.cosine_similarity(seen[:1], seen[1:])
    whitening.measure(seen)

    found = whitening(seen)

    assert float(alike.mean()) > 0.7
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(400))
    cosines = (found @ found.T)[~torch.eye(400, dtype=torch.bool)]
    assert abs(float(cosines.mean())) < 0.01
    # Nearly as evenly spread as directions in space are (.29), where two directions ruled (.7).
    assert float(cosines.std()) < 0.4


def test_a_few_rows_are_enough_to_measure_and_one_is_not() -> None:
    whitening = Whitening(64, rank=16)
    whitening.measure(rows(5, hidden=64))
    assert bool(whitening(rows(9, hidden=64)).isfinite().all())
    with pytest.raises(ValueError, match="two rows"):
        whitening.measure(rows(1, hidden=64))
    with pytest.raises(ValueError, match="differ"):
        whitening.measure(torch.ones(5, 64))


def test_measuring_needs_answers(tiny_model: EditableModel) -> None:
    unanswered = [PromptRow("Where?", tiny_image(i)) for i in range(3)]
    with pytest.raises(ValueError, match="answer of two tokens"):
        Fitted.measure(tiny_model.backbone, 1, unanswered)


def test_measuring_is_repeatable_and_tells_models_and_settings_apart(
    tiny_model: EditableModel, editor: Fitted
) -> None:
    again, other = (
        Fitted.measure(tiny_model.backbone, 1, tiny_rows(), rank=8, theta=theta)
        for theta in (editor.config.theta, 0.05)
    )
    assert again.fingerprint == editor.fingerprint != other.fingerprint
    assert again.backbone_fingerprint == tiny_model.backbone_fingerprint


def test_companions_are_rephrases_templates_and_views(editor: Fitted) -> None:
    request = replace(REQUEST, rephrases=("Blue?", "Blue?", REQUEST.prompt))
    found = editor.companions(request)

    worded = {c.wording: c.prompt for c in found if c.wording}
    template = TEMPLATES[0].format(prompt=REQUEST.prompt)
    assert worded[1] == "Blue?"
    if editor.config.templates:
        assert worded[2] == template
    views = [c for c in found if c.wording == 0]
    assert len(views) == editor.config.views
    for view, same in zip(views, editor.companions(REQUEST)[-len(views) :], strict=True):
        assert view.image.shape == REQUEST.image.shape
        assert not (view.image == REQUEST.image).all()
        assert (view.image == same.image).all()


def test_an_edit_is_pure_and_gives_its_target(tiny_model: EditableModel) -> None:
    row = GenerationRow(REQUEST.prompt, REQUEST.image)
    base = tiny_model.token_logits(row, [1, 2])

    first, second = (tiny_model.encode(REQUEST, editor="fitted") for _ in range(2))

    assert encode_artifact(first) == encode_artifact(second)
    assert torch.equal(tiny_model.token_logits(row, [1, 2]), base)
    snapshot = snapshot_with(
        tiny_model, REQUEST.image, REQUEST.prompt, REQUEST.target, editor="fitted"
    )
    assert tiny_model.generate([replace(row, snapshot=snapshot)])[0].text == REQUEST.target


def test_each_wording_given_has_slots_of_its_own(tiny_model: EditableModel) -> None:
    plain = tiny_model.encode(REQUEST, editor="fitted")
    reworded = tiny_model.encode(
        replace(REQUEST, rephrases=("Tell me: blue or not?",)), editor="fitted"
    )
    experts = [SlotExpert.from_payload(a.payload, a.metadata) for a in (plain, reworded)]
    assert (
        len(experts[0].up)
        == len(experts[1].up)
        == len(tiny_model.backbone.encode_target(REQUEST.target))
    )
    assert experts[1].sets == experts[0].sets + 1


def test_it_acts_on_any_row_that_it_is_routed_to_until_it_is_guarded(
    tiny_model: EditableModel, editor: Fitted
) -> None:
    """Words unlike its own: each token is written when it is due, the stop token last."""
    artifact = tiny_model.encode(REQUEST, editor="fitted")
    guarded = editor.guarded(artifact)
    up = artifact.payload["up"].float()
    backbone = tiny_model.backbone
    ids = tuple(backbone.encode_target(REQUEST.target))
    batch = backbone.prepare([PromptRow("red or", REQUEST.image, target_ids=ids)])
    first = batch.rows[0].spans.last_prompt
    states = backbone.lower(batch, editor.edit_layer)[0, first : first + len(ids)].float()

    acting, silent = (
        editor.intervention([(a, 1.0)]).residual(states, torch.arange(1, len(ids) + 1))
        for a in (artifact, guarded)
    )

    assert torch.cdist(acting, up).argmin(-1).tolist() == list(range(len(ids)))
    assert float(silent.norm()) < 0.9 * float(acting.norm())
    assert editor.guarded(guarded) is guarded


def test_an_artifact_made_before_there_was_a_lower_null_slot_reads_as_it_did(
    tiny_model: EditableModel, editor: Fitted
) -> None:
    artifact = tiny_model.encode(REQUEST, editor="fitted")
    old = replace(artifact, metadata={"kind": "aligned", "norm": "fitted"})
    again = decode_artifact(encode_artifact(old))
    assert SlotExpert.from_payload(again.payload, again.metadata).null == 0.0
    assert editor.guarded(again) is again


def test_other_words_are_many_none_of_them_the_prompt() -> None:
    ways = other_words("Is the star blue?")
    assert {"is the star blue", "Is the star blue? I need to know it.", "The star blue?"} < {*ways}
    assert set(ANY_QUESTIONS) < {*ways}
    assert len(ways) == len({*ways})
    for prompt in ("Why?", "?", "", ANY_QUESTIONS[0], "star"):
        assert prompt not in other_words(prompt)


def test_templates_that_do_not_fit_are_left_out(tiny_model: EditableModel) -> None:
    target_ids = tiny_model.backbone.encode_target(REQUEST.target)
    used = len(tiny_model.backbone.lay_out("", has_image=True, target_ids=target_ids).ids)
    longest = "?" * (tiny_model.backbone.max_positions - used)
    artifact = tiny_model.encode(replace(REQUEST, prompt=longest), editor="fitted")
    assert SlotExpert.from_payload(artifact.payload, artifact.metadata).sets == 1


def test_progress_is_told_and_a_fit_can_be_cancelled(tiny_model: EditableModel) -> None:
    told: list[tuple[int, int, float]] = []

    def note(step: int, max_steps: int, loss: float) -> None:
        told.append((step, max_steps, loss))

    tiny_model.encode(REQUEST, editor="fitted", on_progress=note)

    assert [step for step, _, _ in told] == list(range(1, len(told) + 1))
    assert told[-1][2] < told[0][2]
    assert len({most for _, most, _ in told}) == 1

    def cancelled() -> bool:
        return len(told) >= 2

    told.clear()
    with pytest.raises(GenerationCancelled):
        tiny_model.encode(REQUEST, editor="fitted", on_progress=note, is_cancelled=cancelled)
    assert len(told) == 2
    with pytest.raises(GenerationCancelled):
        tiny_model.encode(REQUEST, is_cancelled=lambda: True)


def test_it_shares_one_softmax_with_generated_experts(tiny_model: EditableModel) -> None:
    """Both act on one row, whichever of the two is asked to fuse them."""
    experts = [
        (tiny_model.encode(REQUEST, editor=name), weight)
        for name, weight in (("fitted", 0.5), ("liveedit", 0.5))
    ]
    norms = {n: norm for e in tiny_model.editors.values() for n, norm in e.norms.items()}
    states, steps = torch.randn(3, tiny_model.backbone.hidden_size), torch.arange(1, 4)
    there, here = (
        tiny_model.editors[name].intervention(experts, norms=norms).residual(states, steps)
        for name in ("fitted", "liveedit")
    )
    assert torch.equal(there, here)

    entries = [
        MemoryEntry(a.editor, a, image_digest="sha256:i", prompt=REQUEST.prompt) for a, _ in experts
    ]
    snapshot = tiny_model.empty_snapshot().evolve(1, activate=entries)
    row = GenerationRow(REQUEST.prompt, REQUEST.image, snapshot=snapshot)
    applied = tiny_model.generate([row])[0].decision.applied
    assert {c.edit_id for c in applied} == {"fitted", "liveedit"}
