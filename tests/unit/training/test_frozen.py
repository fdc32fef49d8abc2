"""Prefixes computed once must be what the backbone's own forward computes."""

from __future__ import annotations

import pytest
import torch

from editing_core.backbones.batch import PromptRow
from editing_core.editable_model import EditableModel
from editing_core.states import EditStates
from editing_core.training.frozen import FrozenDecoder
from editing_core.training.scenes import Stage
from tests.support.tiny_model import tiny_image

LAYER = 1
QUESTIONS = [(1, "What colour is the star?"), (2, "How many?"), (1, "Is it red, or is it blue?")]
TARGETS = ["a b a c", "seven", "x"]


@pytest.fixture(scope="module")
def stage(tiny_model: EditableModel) -> Stage:
    backbone = tiny_model.backbone
    frozen = FrozenDecoder(
        backbone.decoder, backbone.output_head, layer=LAYER, storage=torch.float32
    )
    return Stage(backbone, frozen, all_blocks=True, chunk=2)


def test_answers_on_prefixes_equal_the_whole_forward(stage: Stage) -> None:
    backbone, frozen = stage.backbone, stage.frozen
    pictures = dict(zip((1, 2), stage.show([tiny_image(1), tiny_image(2)]), strict=True))
    asked = stage.ask([(pictures[seed], prompt) for seed, prompt in QUESTIONS])
    answers = [torch.tensor(backbone.encode_target(target)) for target in TARGETS]

    ran = frozen.answer(
        [a.prefix for a in asked],
        [
            torch.cat([torch.tensor([a.last_id]), ids[:-1]])
            for a, ids in zip(asked, answers, strict=True)
        ],
    )

    for i, ((seed, prompt), target) in enumerate(zip(QUESTIONS, TARGETS, strict=True)):
        batch = backbone.prepare([PromptRow(prompt, tiny_image(seed), target=target)])
        spans = batch.rows[0].spans
        with torch.no_grad():
            logits = backbone.forward(batch)[0]
            states = backbone.lower(batch, LAYER)[0]
        first, count = spans.last_prompt, len(answers[i])
        torch.testing.assert_close(
            frozen.head(ran.hidden[i, :count]),
            logits[first : first + count],
            atol=1e-4,
            rtol=1e-4,
        )
        torch.testing.assert_close(
            ran.states[i, :count], states[first : first + count], atol=1e-4, rtol=1e-4
        )
        assert asked[i].spans(count) == spans
        torch.testing.assert_close(
            asked[i].query_states().hidden, states[:first], atol=1e-4, rtol=1e-4
        )


def test_an_edits_states_are_those_of_its_teacher_forced_row(stage: Stage) -> None:
    backbone, frozen = stage.backbone, stage.frozen
    picture = stage.show([tiny_image(3)])[0]
    asked = stage.ask([(picture, "What is it?")])[0]
    ids = torch.tensor(backbone.encode_target("a b"))
    ran = frozen.answer([asked.prefix], [torch.cat([torch.tensor([asked.last_id]), ids[:-1]])])

    made = asked.edit_states(ran.states[0], ids, frozen.embed(ids))

    batch = backbone.prepare([PromptRow("What is it?", tiny_image(3), target="a b")])
    with torch.no_grad():
        served = EditStates(
            hidden=backbone.lower(batch, LAYER)[0],
            spans=batch.rows[0].spans,
            target_ids=ids,
            target_embeddings=backbone.embed_tokens(ids.tolist()),
        )
    assert made.spans == served.spans
    torch.testing.assert_close(made.signal, served.signal, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made.predicting, served.predicting, atol=1e-4, rtol=1e-4)
    assert torch.equal(made.target_embeddings, served.target_embeddings)


def test_a_zero_residual_changes_nothing_and_a_gradient_reaches_a_real_one(stage: Stage) -> None:
    picture = stage.show([tiny_image(1)])[0]
    asked = stage.ask([(picture, "What is it?")])[0]
    rows = [torch.tensor([asked.last_id, 5])]
    push = torch.zeros(stage.backbone.hidden_size, requires_grad=True)

    plain = stage.frozen.answer([asked.prefix], rows)
    pushed = stage.frozen.answer([asked.prefix], rows, lambda states, _: states * 0.0 + push)
    pushed.hidden.square().sum().backward()  # type: ignore[no-untyped-call]

    assert torch.equal(plain.hidden, pushed.hidden.detach())
    assert push.grad is not None
    assert bool((push.grad != 0).any())
    assert all(p.grad is None for p in stage.backbone.decoder.parameters())


def test_whole_rows_through_the_upper_blocks_equal_the_whole_forward(stage: Stage) -> None:
    backbone = stage.backbone
    prompts = ["What is it?", "How many stars are there?"]
    rows, expected = [], []
    with torch.no_grad():
        for prompt in prompts:
            batch = backbone.prepare([PromptRow(prompt, tiny_image(1), target="a b")])
            rows.append(backbone.lower(batch, LAYER)[0])
            expected.append(backbone.forward(batch)[0])

        logits = stage.frozen.head(stage.frozen.whole(rows))

    for i, wanted in enumerate(expected):
        torch.testing.assert_close(logits[i, : len(wanted)], wanted, atol=1e-4, rtol=1e-4)


def test_lower_blocks_alone_give_the_same_states(stage: Stage) -> None:
    lower = Stage(stage.backbone, stage.frozen, all_blocks=False)
    question = "What colour is the star?"

    whole = stage.ask([(stage.show([tiny_image(1)])[0], question)])[0]
    part = lower.ask([(lower.show([tiny_image(1)])[0], question)])[0]

    torch.testing.assert_close(part.stretch.states, whole.stretch.states)
    torch.testing.assert_close(part.picture.image_states, whole.picture.image_states)
    assert part.stretch.cache.shape[0] == LAYER + 1
    assert len(stage.backbone.layers) > LAYER + 1
