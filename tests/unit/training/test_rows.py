"""The general way through a frozen model: what is trained is what is served, family by family."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from editing_core.backbones.batch import PromptRow
from editing_core.editors.liveedit import LiveEdit, LiveEditConfig
from editing_core.editors.visedit import VisEdit, VisEditConfig
from editing_core.errors import TrainingError
from editing_core.objectives.losses import IGNORED
from editing_core.training.by_hand import Applied, encode
from editing_core.training.frozen import FrozenDecoder
from editing_core.training.rows import FrozenRows
from editing_core.training.scenes import Stage
from editing_core.training.sources import TrainingEdit, TrainingProbe
from tests.support.tiny_model import tiny_image
from tests.unit.training.conftest import GetBackbone

# M-RoPE and a picture of any shape; a prefix that is not causal; queries; tiles with separators;
# features added between blocks; the embedded model's own kind.
FAMILIES = ("qwen2_5_vl", "qwen3_vl", "paligemma", "blip-2", "llava_next", "idefics3", "llava")
LAYER = 2


def editor_of(form: Any, hidden: int) -> LiveEdit | VisEdit:
    torch.manual_seed(0)
    if form == "adapter":
        editor = VisEdit(VisEditConfig(hidden, LAYER, width=16, heads=4, patches=3))
        with torch.no_grad():
            editor.module.log_scale.fill_(2.0)
        return editor
    return LiveEdit(LiveEditConfig(hidden, LAYER, form, width=16, heads=4))


def edits(count: int) -> list[TrainingEdit]:
    """Pictures of several shapes, so that rows differ in length and in patches."""
    return [
        TrainingEdit(
            "the blue" if number else "it is a star",
            (TrainingProbe("edit", tiny_image(number, height=30 + 24 * number), "Is it blue?"),),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("acts", ["from_last_prompt_token", "vision", "all"])
def test_without_a_residual_it_is_the_plain_model(
    backbone_of: GetBackbone, family: str, acts: Any
) -> None:
    backbone = backbone_of(family)
    asked = [
        PromptRow("Is it blue?", tiny_image(0), target="the blue"),
        PromptRow("And what is this, a river?", tiny_image(1, height=90), target="no"),
        PromptRow("Who wrote it?", None, target="nobody"),
    ]
    rows = FrozenRows(backbone, asked, layer=LAYER, acts=acts)
    batch = backbone.prepare(asked)
    plain = backbone.forward(batch)

    added = rows.head(rows.edited_hidden(lambda states, _: torch.zeros_like(states)))

    for b, (row, pad) in enumerate(zip(batch.rows, batch.padding, strict=True)):
        first, count = pad + row.spans.last_prompt, row.spans.target[1] - row.spans.target[0]
        assert torch.equal(added[b, :count], plain[b, first : first + count])
        assert rows.targets[b, :count].tolist() == list(row.ids[-count:])
        assert bool((rows.targets[b, count:] == IGNORED).all())
    assert torch.equal(added, rows.base_logits())


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["aligned", "paper", "adapter"])
def test_a_row_with_an_edit_is_the_row_that_is_served(
    backbone_of: GetBackbone, family: str, form: Any
) -> None:
    """In one padded batch, against each row alone with a stored artifact."""
    backbone = backbone_of(family)
    editor = editor_of(form, backbone.hidden_size)
    drawn = edits(2)
    asked = [
        PromptRow(edit.probes[0].prompt, edit.probes[0].image, target=edit.target) for edit in drawn
    ]
    rows = FrozenRows(backbone, asked, layer=LAYER, acts=editor.positions)
    made = [rows.edit_states(b) for b in range(2)]

    residual = editor.batch_residual(made, torch.eye(2))
    trained = rows.head(rows.edited_hidden(residual))
    base = rows.base_logits()

    for b, edit in enumerate(drawn):
        intervention = editor.intervention([(encode(editor, backbone, edit), 1.0)])
        alone = backbone.prepare([asked[b]])
        served = backbone.forward(alone, taps=Applied(alone, LAYER, intervention).prefill_taps())
        first = alone.rows[0].spans.last_prompt
        count = int((rows.targets[b] != IGNORED).sum())
        difference = (trained[b, :count] - served[0, first : first + count]).abs().max()
        moved = (trained[b, :count] - base[b, :count]).abs().max()
        # What is stored is rounded to float16; the edit's own effect is far larger.
        assert float(difference) < 0.05 * float(moved) + 1e-3, (float(difference), float(moved))


def test_gradient_reaches_the_editor_and_nothing_else(backbone_of: GetBackbone) -> None:
    backbone = backbone_of("qwen2_5_vl")
    editor = editor_of("aligned", backbone.hidden_size)
    asked = [PromptRow("Is it blue?", tiny_image(0), target="the blue")]
    rows = FrozenRows(backbone, asked, layer=LAYER, acts=editor.positions)

    residual = editor.batch_residual([rows.edit_states(0)], torch.ones(1, 1))
    rows.head(rows.edited_hidden(residual)).sum().backward()  # type: ignore[no-untyped-call]

    assert any(bool((p.grad != 0).any()) for p in editor.module.parameters() if p.grad is not None)
    for module in (backbone.decoder, backbone.output_head, backbone.projector):
        assert all(p.grad is None and not p.requires_grad for p in module.parameters())


def test_only_the_embedded_models_kind_keeps_prefixes(backbone_of: GetBackbone) -> None:
    """`has_plain_prefix` is what `training.frozen` relies on; see `test_frozen`."""
    kept = [family for family in FAMILIES if backbone_of(family).has_plain_prefix]
    for family in kept:
        backbone = backbone_of(family)
        row = backbone.lay_out("x", has_image=True)
        assert backbone.prefix_is_causal
        assert row.spans.apart == ()
        vision = row.spans.vision
        assert vision is not None
        assert vision[1] - vision[0] == backbone.num_image_tokens
        batch = backbone.prepare([PromptRow("x", tiny_image(0, height=90))])
        assert batch.rows[0].spans.vision == vision
        assert torch.equal(backbone.positions(batch), torch.arange(batch.length)[None])
        words = batch.input_ids[:, -2:]
        assert torch.equal(backbone.embed(batch)[:, -2:], backbone.token_embedding(words))
    assert kept == ["llava"]
    other: Any = backbone_of("paligemma")
    with pytest.raises(TrainingError, match="paligemma"):
        Stage(other, FrozenDecoder(other.decoder, other.output_head, layer=1), all_blocks=True)
