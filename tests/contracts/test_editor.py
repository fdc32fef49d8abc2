"""What every editor must do, whatever its method; each registered one is put through it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from editing_core.checkpoint import CheckpointLayout
from editing_core.editable_model import EditableModel
from editing_core.editors.base import Editor
from editing_core.editors.fitted import Fitted
from editing_core.editors.liveedit import LiveEdit
from editing_core.editors.visedit import VisEdit
from editing_core.errors import CheckpointCorrupt, CheckpointMissing, FingerprintMismatch
from editing_core.registry import EDITORS
from editing_core.states import EditStates
from editing_core.types import EditArtifact, EditRequest, TokenSpans
from tests.support.tiny_model import tiny_image

pytestmark = pytest.mark.parametrize("name", sorted(EDITORS))


def edit_states(hidden: int, *, seed: int = 0, slots: int = 3) -> EditStates:
    """A row of 4 image rows, 3 words, 2 template rows and an answer."""
    random = torch.Generator().manual_seed(seed)
    return EditStates(
        hidden=torch.randn(10 + slots, hidden, generator=random),
        spans=TokenSpans(vision=(1, 5), prompt=(5, 8), last_prompt=9, target=(10, 10 + slots)),
        target_ids=torch.arange(slots),
        target_embeddings=torch.randn(slots, hidden, generator=random),
    )


def editor_of(model: EditableModel, name: str) -> Editor:
    return model.editors[name]


def test_encoding_is_pure(tiny_model: EditableModel, name: str) -> None:
    editor = editor_of(tiny_model, name)
    states = edit_states(tiny_model.backbone.hidden_size)
    before = states.hidden.clone()

    first, first_notes = editor.encode(states)
    second, second_notes = editor.encode(states)

    assert first_notes == second_notes
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(states.hidden, before)


def test_a_payload_is_finite_half_precision_on_the_cpu(
    tiny_model: EditableModel, name: str
) -> None:
    payload, metadata = editor_of(tiny_model, name).encode(
        edit_states(tiny_model.backbone.hidden_size)
    )

    assert metadata["kind"]
    for tensor in payload.values():
        assert tensor.dtype == torch.float16
        assert tensor.device.type == "cpu"
        assert bool(torch.isfinite(tensor).all())


def test_an_intervention_keeps_to_its_positions(tiny_model: EditableModel, name: str) -> None:
    editor = editor_of(tiny_model, name)
    artifact = tiny_model.encode(EditRequest(tiny_image(1), "What?", "a b a"), editor=name)

    intervention = editor.intervention([(artifact, 1.0)])
    states = torch.randn(5, tiny_model.backbone.hidden_size)
    residual = intervention.residual(states, torch.arange(-2, 3))

    assert artifact.positions == editor.positions == intervention.positions
    assert residual.shape == states.shape
    assert bool((residual != 0).any())
    if editor.positions == "from_last_prompt_token":
        assert torch.equal(residual[:3], torch.zeros_like(residual[:3]))


def test_decoding_row_by_row_gives_what_prefill_gives(tiny_model: EditableModel, name: str) -> None:
    if editor_of(tiny_model, name).positions == "vision":
        # Its rows are a picture's, which only a prefill has.
        return
    artifact = tiny_model.encode(EditRequest(tiny_image(1), "What?", "a b a"), editor=name)
    intervention = editor_of(tiny_model, name).intervention([(artifact, 1.0)])
    states = torch.randn(4, tiny_model.backbone.hidden_size)
    steps = torch.arange(1, 5)

    whole = intervention.residual(states, steps)
    parts = [intervention.residual(states[i : i + 1], steps[i : i + 1]) for i in range(4)]

    torch.testing.assert_close(torch.cat(parts), whole)


def test_what_is_trained_is_what_is_served(tiny_model: EditableModel, name: str) -> None:
    """The trainer's batched residual equals, row for row, the one that a server fuses."""
    editor = editor_of(tiny_model, name)
    if isinstance(editor, Fitted):
        return  # nothing of it is trained
    assert isinstance(editor, LiveEdit | VisEdit)
    hidden = tiny_model.backbone.hidden_size
    edits = [edit_states(hidden, seed=i, slots=2 + i) for i in range(3)]
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.7, 0.1]])
    states, steps = torch.randn(2, 5, hidden), torch.arange(-1, 4).expand(2, 5)
    if editor.positions == "vision":
        # A picture of four rows, padded as it is beside a larger one.
        states, steps = states[:, :4], steps[:, :4]
        padded = torch.nn.functional.pad(states, (0, 0, 0, 2))
        trained = editor.batch_residual(edits, weights)(padded, torch.zeros(2, 6))[:, :4]
    else:
        trained = editor.batch_residual(edits, weights)(states, steps)

    for row in range(2):
        experts = [
            (served(tiny_model, editor, name, edit), float(weights[row, i]))
            for i, edit in enumerate(edits)
            if weights[row, i] > 0
        ]
        residual = editor.intervention(experts).residual(states[row], steps[row])
        torch.testing.assert_close(trained[row], residual, atol=0.02, rtol=0.01)


def served(model: EditableModel, editor: Editor, name: str, states: EditStates) -> EditArtifact:
    """The artifact as stored: rounded to half precision."""
    whole = model.encode(EditRequest(tiny_image(1), "What?", "a"), editor=name)
    payload, metadata = editor.encode(states)
    return EditArtifact(
        editor=name,
        edit_layer=editor.edit_layer,
        positions=editor.positions,
        payload=payload,
        key=whole.key,
        backbone_fingerprint=whole.backbone_fingerprint,
        editor_fingerprint=editor.fingerprint,
        router_fingerprint=whole.router_fingerprint,
        metadata=metadata,
    )


def test_saved_and_loaded_it_is_the_same_editor(
    tiny_checkpoint: Path, tiny_model: EditableModel, name: str, tmp_path: Path
) -> None:
    loaded = EDITORS.resolve(name).load(*CheckpointLayout(tiny_checkpoint).part(name))
    loaded.save(tmp_path / "e.safetensors", tmp_path / "e.json")
    again = EDITORS.resolve(name).load(tmp_path / "e.safetensors", tmp_path / "e.json")
    states = edit_states(tiny_model.backbone.hidden_size)

    assert again.fingerprint == loaded.fingerprint
    before, after = loaded.encode(states)[0], again.encode(states)[0]
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_damaged_checkpoints_are_refused_by_name(
    tiny_checkpoint: Path, name: str, tmp_path: Path
) -> None:
    editor_class = EDITORS.resolve(name)
    weights, description = CheckpointLayout(tiny_checkpoint).part(name)
    copy = tmp_path / "copy.safetensors"

    with pytest.raises(CheckpointMissing, match="copy"):
        editor_class.load(copy, description)
    copy.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(CheckpointCorrupt, match="copy"):
        editor_class.load(copy, description)
    changed = bytearray(weights.read_bytes())
    changed[-3] ^= 1
    copy.write_bytes(bytes(changed))
    with pytest.raises(FingerprintMismatch, match="copy"):
        editor_class.load(copy, description)
    bad = tmp_path / "bad.json"
    kind = json.loads(description.read_text())["kind"]
    bad.write_text(f'{{"kind": "{kind}", "config": {{"hidden": "wide"}}}}')
    with pytest.raises(CheckpointCorrupt, match="bad"):
        editor_class.load(weights, bad)
