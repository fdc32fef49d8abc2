"""Every backbone, on tiny random weights of the real class, against the library that made it."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook
from transformers import AutoProcessor, CLIPModel, LlavaForConditionalGeneration
from transformers.models.clip.modeling_clip import CLIPEncoder

from editing_core.backbones import loading
from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import ImageFeatures, PromptRow
from editing_core.backbones.images import to_pil
from editing_core.backbones.loading import find_checkpoint, load_backbone
from editing_core.backbones.passes import DecodeState, Tap
from editing_core.backbones.processors import load_processor
from editing_core.backbones.watching import watching
from editing_core.backbones.weights import resolve_module
from editing_core.batching.beginnings import Beginnings
from editing_core.batching.cache import can_join, join, select
from editing_core.checkpoint import write_manifest
from editing_core.config import Placement
from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.editors.fitted import Fitted
from editing_core.errors import (
    CheckpointCorrupt,
    CheckpointMissing,
    ContextTooLong,
    RequestError,
    UnknownArchitecture,
)
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.registry import BACKBONES
from editing_core.routing.base import Query
from editing_core.routing.router import Router, RouterConfig
from editing_core.states import RoutingStates
from editing_core.types import Candidate, EditRequest, RoutingDecision, RoutingKey, Sampling, Turn
from tests.support.batching import Driver
from tests.support.plain_llava import save_plain_llava
from tests.support.tiny_families import FAMILIES, VARIANTS
from tests.support.tiny_model import tiny_image, tiny_rows


@dataclass(frozen=True)
class Case:
    """A backbone beside the stock model and processor of the same folder."""

    backbone: Backbone
    model: Any
    processor: Any
    write: Callable[[str, int], str]
    text_alone: str = "processor"

    def stock(self, row: PromptRow) -> tuple[Any, dict[str, Any]]:
        """Who answers this row, and with which inputs."""
        images = [] if row.image is None else [row.image, *row.more_images]
        text = self.write(row.prompt, len(images))
        if not images and self.text_alone != "processor":
            inputs = self.processor.tokenizer(
                text, return_tensors="pt", return_token_type_ids=self.text_alone == "tokenizer"
            )
            alone = self.text_alone == "language_model"
            return self.model.language_model if alone else self.model, dict(inputs)
        shown = [self.shown(image) for image in images] or None
        with warnings.catch_warnings():
            # PaliGemma's processor makes an array of a tensor in a way that numpy gives up.
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            inputs = self.processor(images=shown, text=text, return_tensors="pt")
        return self.model, {name: inputs[name] for name in inputs if name != "labels"}

    def shown(self, image: Any) -> Image.Image:
        return (
            to_pil(image) if getattr(self.backbone, "letterboxes", True) else Image.fromarray(image)
        )

    def num_tokens(self, features: ImageFeatures) -> int:
        pictures = features.pictures or (self.backbone.usual_picture,)
        return sum(picture.num_tokens for picture in pictures)


def load(folder: Path) -> Backbone:
    return load_backbone(find_checkpoint(folder), Placement.resolve())


def stock_case(folder: Path, model_folder: Path, write: Callable[[str, int], str]) -> Case:
    model = LlavaForConditionalGeneration.from_pretrained(model_folder).eval()
    return Case(load(folder), model, AutoProcessor.from_pretrained(model_folder), write)


def family_case(name: str, folder: Path) -> Case:
    family = (FAMILIES | VARIANTS)[name]
    family.save(folder)
    model = family.model_class.from_pretrained(folder).eval()
    processor = load_processor(family.processor_class, folder)
    return Case(load(folder), model, processor, family.write, family.text_alone)


@pytest.fixture(scope="module", params=["laid out", "plain", *FAMILIES, *VARIANTS])
def case(
    request: pytest.FixtureRequest,
    tiny_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Case:
    if request.param in FAMILIES | VARIANTS:
        return family_case(request.param, tmp_path_factory.mktemp("family"))
    if request.param == "plain":
        folder = save_plain_llava(tmp_path_factory.mktemp("plain"))
        return stock_case(
            folder,
            folder,
            lambda prompt, seen: f"USER: {f'<image>{chr(10)}' * seen}{prompt} ASSISTANT:",
        )
    return stock_case(
        tiny_checkpoint,
        tiny_checkpoint / "model",
        lambda prompt, seen: (
            f"<|user|>\n{f'<image>{chr(10)}' * seen}{prompt}<|end|>\n<|assistant|>\n"
        ),
    )


ROWS = [
    PromptRow("Is the star blue?", tiny_image(0)),
    PromptRow("the", tiny_image(1, height=20, width=70)),
    PromptRow("No picture here, only a long question about nothing", None),
]


@pytest.mark.parametrize("row", ROWS)
def test_tokens_and_logits_are_those_of_the_stock_model(case: Case, row: PromptRow) -> None:
    batch = case.backbone.prepare([row])
    model, inputs = case.stock(row)
    assert batch.input_ids.tolist() == inputs["input_ids"].tolist()
    with torch.no_grad():
        expected = model(**inputs).logits
    assert torch.equal(case.backbone.forward(batch), expected)


@pytest.mark.parametrize("row", ROWS)
def test_greedy_decoding_is_that_of_the_stock_model(case: Case, row: PromptRow) -> None:
    model, inputs = case.stock(row)
    expected = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    logits, state = case.backbone.prefill(case.backbone.prepare([row]))
    tokens: list[int] = []
    while len(tokens) < 12:
        tokens.append(int(logits[0].argmax()))
        if tokens[-1] in case.backbone.stop_token_ids:
            break
        logits = case.backbone.decode(torch.tensor(tokens[-1:]), state)
    prompt = inputs["input_ids"].shape[1]
    assert tokens == expected[0, prompt:].tolist()


def greedy(case: Case, row: PromptRow, steps: int) -> list[Tensor]:
    """Logits of each step of one row alone."""
    logits, state = case.backbone.prefill(case.backbone.prepare([row]))
    found = [logits[0]]
    for _ in range(steps):
        found.append(case.backbone.decode(found[-1].argmax()[None], state)[0])
    return found


def test_rows_may_join_and_leave_while_others_decode(case: Case) -> None:
    """Long enough for what has a window to forget; the last to come is the longest."""
    assert can_join(case.backbone.new_cache())
    entering = {0: [ROWS[2]], 3: [ROWS[0]], 5: [ROWS[1], replace(ROWS[1], prompt="the " * 9)]}
    leaving = {4: 0, 9: 1}
    running: list[tuple[list[Tensor], list[Tensor]]] = []
    state: DecodeState | None = None
    for step in range(24):
        if step in entering:
            rows = entering[step]
            logits, entered = case.backbone.prefill(case.backbone.prepare(rows))
            running += [([line], greedy(case, r, 24)) for line, r in zip(logits, rows, strict=True)]
            state = entered if state is None else join([state, entered])
        if step in leaving:
            del running[leaving[step]]
            kept = [b for b in range(len(running) + 1) if b != leaving[step]]
            assert state is not None
            state = select(state, kept)
        assert state is not None
        tokens = torch.stack([found[-1].argmax() for found, _ in running])
        for (found, _), line in zip(running, case.backbone.decode(tokens, state), strict=True):
            found.append(line)
    assert len(running) == 2
    for found, alone in running:
        for line, expected in zip(found, alone, strict=False):
            assert int(line.argmax()) == int(expected.argmax())
            torch.testing.assert_close(line, expected, rtol=1e-4, atol=1e-4)


def test_several_pictures_stand_in_order(case: Case) -> None:
    row = replace(ROWS[0], more_images=(tiny_image(5, height=30), tiny_image(6)))
    if not case.backbone.takes_several_images:
        with pytest.raises(RequestError, match="one picture"):
            case.backbone.prepare([row])
        return
    batch = case.backbone.prepare([row])
    model, inputs = case.stock(row)
    assert batch.input_ids.tolist() == inputs["input_ids"].tolist()
    with torch.no_grad():
        expected = model(**inputs).logits
    # The stock model looks at all of them in one batch, which rounds differently.
    assert torch.allclose(case.backbone.forward(batch), expected, atol=1e-3)
    (shown,) = batch.rows
    assert shown.features is not None
    assert len(batch.input_ids[0, shown.spans.vision_rows]) == len(shown.features.patches)
    first = case.backbone.image_features([tiny_image(0)])[0]
    assert np.array_equal(shown.features.key, first.key)


TALK = (
    Turn("user", "What is it?", (tiny_image(5, height=30),)),
    Turn("assistant", "the star"),
    Turn("user", "Is the star blue?"),
)


def test_a_conversation_is_written_as_the_stock_template_does(case: Case) -> None:
    question, picture = TALK[-1].text, TALK[0].images[0]
    batch = case.backbone.prepare([PromptRow(question, picture, turns=TALK)])
    (row,) = batch.rows
    (alone,) = case.backbone.prepare([PromptRow(question, picture)]).rows

    # Edits go by the last question and the picture, as if nothing had been said before.
    assert row.alone is not None
    assert (row.alone.ids, row.alone.spans) == (alone.ids, alone.spans)
    assert row.features is not None
    assert alone.features is not None
    assert np.array_equal(row.features.key, alone.features.key)
    assert batch.pictures[0] == np.arange(len(row.ids))[row.spans.vision_rows].tolist()
    start, stop = row.spans.prompt
    assert case.backbone.text_of(row.ids[start:stop]) == question
    (states,) = case.backbone.word_states([row], 1)
    assert torch.equal(states, case.backbone.word_states([alone], 1)[0])

    if case.processor.chat_template is None:
        return
    messages = [
        {
            "role": turn.role,
            "content": [{"type": "image"}] * len(turn.images)
            + [{"type": "text", "text": turn.text}],
        }
        for turn in TALK
    ]
    text = case.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        inputs = case.processor(images=[case.shown(picture)], text=text, return_tensors="pt")
    assert batch.input_ids.tolist() == inputs["input_ids"].tolist()
    with torch.no_grad():
        expected = case.model(**{n: inputs[n] for n in inputs if n != "labels"}).logits
    assert torch.equal(case.backbone.forward(batch), expected)


def test_the_latest_picture_is_the_one_that_edits_may_change(case: Case) -> None:
    if not case.backbone.takes_several_images:
        return
    latest = tiny_image(6)
    turns = (*TALK[:-1], Turn("user", TALK[-1].text, (latest,)))
    batch = case.backbone.prepare([PromptRow(TALK[-1].text, latest, turns=turns)])
    (row,) = batch.rows
    (features,) = case.backbone.image_features([latest])

    assert row.features is not None
    assert np.array_equal(row.features.key, features.key)
    shown = case.backbone.embed(batch)[0, batch.pictures[0]]
    assert torch.equal(shown, features.patches)
    assert len(row.features.patches) > len(features.patches)


def test_what_acts_on_one_row_changes_no_other(case: Case) -> None:
    batch = case.backbone.prepare(ROWS)
    plain, _ = case.backbone.prefill(batch)

    def push(hidden: Tensor) -> Tensor:
        changed = hidden.clone()
        changed[1, batch.rows[1].spans.last_prompt + batch.padding[1] :] += 3.0
        return changed

    pushed, state = case.backbone.prefill(batch, taps={1: push})
    assert not torch.equal(pushed[1], plain[1])
    assert torch.equal(pushed[0], plain[0])
    assert torch.equal(pushed[2], plain[2])
    case.backbone.decode(pushed.argmax(-1), state, taps={1: torch.zeros_like})


def test_a_prefix_is_causal_where_that_is_said(case: Case) -> None:
    """What the model makes of the picture's rows does not depend on words after them, or does."""
    rows = [PromptRow(prompt, tiny_image(0)) for prompt in ("abcd", "wxyz")]
    first, second = (case.backbone.prepare([row]) for row in rows)
    for each in (first, second):
        assert each.length == first.length
    # A family whose tokens are made with the prompt in mind says so by its features, not here.
    vision = first.rows[0].spans.vision_rows
    shown = case.backbone.embed(first)
    other = case.backbone.embed(second)
    other[0, vision] = shown[0, vision]
    found: list[Tensor] = []
    for batch, embeddings in ((first, shown), (second, other)):
        states: list[Tensor] = []
        tap = {case.backbone.num_layers - 1: states.append}
        case.backbone.forward(batch, taps=tap, embeddings=embeddings)
        found.append(states[0][0, vision])
    assert torch.allclose(found[0], found[1], atol=1e-4) is case.backbone.prefix_is_causal


def test_padding_changes_no_answer(case: Case) -> None:
    batch = case.backbone.prepare(ROWS)
    assert batch.is_padded
    together, state = case.backbone.prefill(batch)
    following = case.backbone.decode(together.argmax(-1), state)
    for b, row in enumerate(ROWS):
        alone, own = case.backbone.prefill(case.backbone.prepare([row]))
        assert torch.allclose(together[b], alone[0], atol=1e-4)
        after = case.backbone.decode(alone.argmax(-1), own)
        assert torch.allclose(following[b], after[0], atol=1e-4)


def test_the_two_halves_are_the_whole_bit_for_bit(case: Case) -> None:
    for rows in ([ROWS[0]], ROWS):
        batch = case.backbone.prepare(rows)
        whole = case.backbone.forward(batch)
        for layer in range(case.backbone.num_layers):
            halves = case.backbone.upper(case.backbone.lower(batch, layer), batch, layer)
            assert torch.equal(halves, whole)


def test_rows_may_be_continued_after_a_part_that_was_run_once(case: Case) -> None:
    if not case.backbone.prefix_is_causal:
        return  # then no part is run once for many rows
    batch = case.backbone.prepare(ROWS[:1])
    whole = case.backbone.forward(batch)
    columns = whole.shape[1] - 3
    prefix = case.backbone.read(batch, columns)
    rest = case.backbone.embed(batch)[:, columns:].requires_grad_()

    for _ in range(2):
        logits = case.backbone.forward_after(prefix, batch, rest)
        assert torch.allclose(logits, whole[:, columns:], atol=1e-4)
    logits.sum().backward()  # type: ignore[no-untyped-call]
    assert rest.grad is not None
    assert bool(rest.grad.any())


def test_rows_that_begin_alike_may_be_run_on_from_one_beginning(case: Case) -> None:
    backbone = case.backbone
    if not backbone.has_plain_prefix:
        return  # then every row is run whole
    batch = backbone.prepare([PromptRow(words, tiny_image(0)) for words in ("What?", "Is it red?")])
    assert batch.is_padded
    ends = [
        pad + row.spans.vision[1]
        for pad, row in zip(batch.padding, batch.rows, strict=True)
        if row.spans.vision is not None
    ]
    states = backbone.lower(batch, 0)
    whole = backbone.upper_states(states, batch, 0)
    beginning = states[0, batch.padding[0] : ends[0]].clone().requires_grad_()

    found = backbone.upper_states_after(beginning, states, batch, 0)
    for b, end in enumerate(ends):
        assert torch.allclose(found[b, end:], whole[b, end:], atol=1e-4)
    found[1, ends[1] :].sum().backward()  # type: ignore[no-untyped-call]
    assert beginning.grad is not None
    assert bool(beginning.grad.any())


def test_states_are_those_that_taps_see(case: Case) -> None:
    batch = case.backbone.prepare(ROWS[:1])
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> Tap:
        return lambda hidden: seen.update({layer: hidden})

    case.backbone.forward(batch, taps={i: keep(i) for i in range(case.backbone.num_layers)})
    found = case.backbone.states(batch, (0, case.backbone.num_layers - 1))
    for layer, states in found.items():
        assert torch.equal(states, seen[layer])
    assert set(found) == {0, case.backbone.num_layers - 1}


def test_taps_change_what_follows_and_then_are_gone(case: Case) -> None:
    batch = case.backbone.prepare(ROWS[:1])
    plain = case.backbone.forward(batch)
    zeroed = case.backbone.forward(batch, taps={0: torch.zeros_like})
    assert not torch.equal(zeroed, plain)
    assert torch.equal(
        zeroed,
        case.backbone.upper(torch.zeros_like(case.backbone.lower(batch, 0)), batch, 0),
    )

    def fails(hidden: Tensor) -> None:
        raise RuntimeError("a tap broke")

    with pytest.raises(RuntimeError, match="a tap broke"):
        case.backbone.prefill(batch, taps={1: fails})
    assert torch.equal(case.backbone.forward(batch), plain)
    for layer in case.backbone.layers:
        assert not layer._forward_hooks
        assert not layer._forward_pre_hooks


def test_a_block_adds_what_its_modules_give_out(case: Case) -> None:
    """Names lead to the right modules, and a module can be run again as it was."""
    backbone, batch = case.backbone, case.backbone.prepare(ROWS[:1])
    blocks = range(backbone.num_layers)
    joining = [module for pair in backbone.added for module in pair]
    with watching([*backbone.attentions, *joining, *backbone.layers]) as calls:
        states = backbone.states(batch, blocks)
    for block in blocks:
        attention, place = calls[block], backbone.num_layers + 2 * block
        added = calls[place].output + calls[place + 1].output
        inputs = calls[3 * backbone.num_layers + block].inputs
        assert torch.allclose(inputs + added, states[block], atol=1e-3)
        assert torch.allclose(attention.again(attention.inputs), attention.output, atol=1e-5)
        # Attention sees its rows in order and with their positions.
        turned = attention.again(attention.inputs.flip(1))[:, -1]
        assert not torch.allclose(turned, attention.output[:, -1], atol=1e-4)
    for module in (*backbone.attentions, *joining, *backbone.layers):
        assert not module._forward_hooks


def test_patches_lie_where_the_grid_says(case: Case) -> None:
    """Changing one corner of the picture's last patch changes that patch's token most."""
    (features,) = case.backbone.image_features([np.full((48, 48, 3), 90, dtype=np.uint8)])
    (picture,) = features.pictures or (case.backbone.usual_picture,)
    assert len(features.patches) == picture.num_tokens
    if picture.grid is None:
        assert case.backbone.patch_grid == (1, case.backbone.num_image_tokens)
        return
    rows, columns = picture.grid
    assert picture.grid_start + rows * columns <= picture.num_tokens
    own = slice(picture.grid_start, picture.grid_start + rows * columns)
    image = np.full((48, 48, 3), 90, dtype=np.uint8)
    for row, column in ((0, 0), (0, columns - 1), (rows - 1, 0)):
        marked = image.copy()
        height, width = 48 // rows, 48 // columns
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        marked[row * height : (row + 1) * height, column * width : (column + 1) * width] = noise
        plain, changed = case.backbone.image_features([image, marked])
        moved = (changed.patches - plain.patches).float().norm(dim=-1)[own]
        assert int(moved.argmax()) == row * columns + column


def test_gradients_reach_the_states_but_not_the_weights(case: Case) -> None:
    batch = case.backbone.prepare(ROWS)
    states = case.backbone.lower(batch, 0).requires_grad_()
    loss = case.backbone.upper(states, batch, 0).square().mean()
    (gradient,) = torch.autograd.grad(loss, states)
    assert float(gradient.abs().sum()) > 0
    assert not any(p.requires_grad for p in case.backbone.decoder.parameters())


class AlwaysSelects(Router):
    """Lets every edit act on every question, with the same weight."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(
            RouterConfig(
                backbone.hidden_size, 1, 1, heads=4, image_key_model=backbone.image_key_model
            )
        )

    def keys(
        self,
        states: RoutingStates,
        image_key: NDArray[np.float32],
        *,
        rephrases: Sequence[Tensor] = (),
    ) -> RoutingKey:
        nothing = np.zeros((1, 1), np.float32)
        return RoutingKey(image=image_key, text=nothing, visual=nothing)

    def route_each(self, queries: Sequence[Query]) -> list[RoutingDecision]:
        return [
            RoutingDecision(
                tuple(
                    Candidate(i, cosine, 1.0, 1.0 / len(query.survivors), "applied")
                    for i, cosine in query.survivors
                )
            )
            for query in queries
        ]


@dataclass(frozen=True)
class Edited:
    """A model with one fitted edit, in `snapshot`."""

    model: EditableModel
    request: EditRequest
    snapshot: Snapshot


@pytest.fixture(scope="module")
def edited(case: Case) -> Edited:
    editor = Fitted.measure(case.backbone, 1, tiny_rows(), rank=8, views=1, templates=1)
    model = EditableModel(case.backbone, AlwaysSelects(case.backbone), {"fitted": editor})
    request = EditRequest(tiny_image(0), "Is the star blue?", "the blue")
    artifact = model.encode(request, editor="fitted")
    entry = MemoryEntry("e1", artifact, image_digest="sha256:i", prompt=request.prompt)
    return Edited(model, request, model.empty_snapshot().evolve(1, activate=[entry]))


def test_a_fitted_edit_takes_and_leaves_no_trace(edited: Edited) -> None:
    """No part of it is trained, so it must hold on any model, however random."""
    model, request = edited.model, edited.request
    plain = GenerationRow(request.prompt, request.image, Sampling(max_new_tokens=12))
    ids = model.backbone.encode_target(request.target)
    before = model.token_logits(plain, ids)
    assert model.generate([plain])[0].text != request.target

    (answer,) = model.generate([replace(plain, snapshot=edited.snapshot)])
    assert (answer.text, answer.finish_reason) == (request.target, "stop")
    removed = edited.snapshot.evolve(2, deactivate=["e1"])
    assert torch.equal(model.token_logits(replace(plain, snapshot=removed), ids), before)


RUN_WHOLE = ("gemma3", "paligemma", "instructblip")
"""Families in which a picture's tokens see later ones, or are made with the prompt in mind."""


def test_rows_that_begin_alike_answer_as_those_that_are_run_whole(edited: Edited) -> None:
    """Edited or not, at once or one after another, and beside rows of other lengths."""
    model = edited.model
    prompts = ("Is the star blue?", "the", "the the", "no", "q")
    rows = {
        i: GenerationRow(
            prompt,
            tiny_image(0 if i else 1, height=30 + 20 * (i == 0)),
            Sampling(max_new_tokens=6),
            edited.snapshot if i % 2 else None,
        )
        for i, prompt in enumerate((*prompts, *prompts))
    }
    rows[90] = GenerationRow("No picture", None, Sampling(max_new_tokens=6))
    driver = Driver(model, Beginnings(2**26))
    driver.enter({i: rows[i] for i in (0, 1, 2, 3, 4, 90)})
    driver.step(2)
    driver.enter({i: rows[i] for i in (5,)})
    driver.enter({i: rows[i] for i in (6, 7, 8, 9)})
    results = driver.finish()

    for i, row in rows.items():
        (alone,) = model.generate([row])
        assert (results[i].token_ids, results[i].text) == (alone.token_ids, alone.text)
        assert alone.cached_tokens == 0
    reused = {i for i, result in results.items() if result.cached_tokens}
    shares = model.backbone.architecture not in RUN_WHOLE
    assert reused == (set(range(2, 10)) if shares else set())


def test_spans_say_where_things_are(case: Case) -> None:
    row = PromptRow("Is the <image> blue?", tiny_image(0), target="the blue")
    prepared = case.backbone.prepare([row]).rows[0]
    spans, ids = prepared.spans, prepared.ids
    assert spans.vision is not None
    assert prepared.features is not None
    start, stop = spans.vision
    shown = torch.tensor(ids)[spans.vision_rows]
    assert len(shown) == case.num_tokens(prepared.features)
    assert set(shown.tolist()) == {case.backbone.image_token_id}
    assert len(shown) + len(spans.apart) == stop - start
    assert case.backbone.image_token_id not in [ids[place] for place in spans.apart]
    assert case.backbone.image_token_id not in ids[:start] + ids[stop:]
    assert case.backbone.text_of(ids[slice(*spans.prompt)]) == "Is the <image> blue?"
    assert case.backbone.text_of(ids[slice(*spans.target)]) == "the blue"
    assert spans.target == (spans.last_prompt + 1, len(ids))
    assert list(ids[slice(*spans.target)]) == case.backbone.encode_target("the blue")
    assert ids[-1] in case.backbone.stop_token_ids


def test_a_query_is_the_beginning_of_its_teacher_forced_row(case: Case) -> None:
    query = case.backbone.prepare([PromptRow("Is it blue?", tiny_image(0))]).rows[0]
    edit = case.backbone.prepare([PromptRow("Is it blue?", tiny_image(0), target="no")]).rows[0]
    assert edit.ids[: len(query.ids)] == query.ids
    assert edit.spans.prompt == query.spans.prompt
    assert edit.spans.last_prompt == query.spans.last_prompt == len(query.ids) - 1
    assert query.spans.target == (len(query.ids), len(query.ids))


def test_words_are_read_without_the_picture(case: Case) -> None:
    prompt, other = "What colour is the star?", "Where?"
    asked = [
        PromptRow(prompt, tiny_image(1)),
        PromptRow(other, tiny_image(2)),
        PromptRow(prompt, tiny_image(3), target="a b"),
    ]
    rows = case.backbone.prepare(asked).rows

    words = case.backbone.word_states(rows, 0)

    assert torch.equal(words[0], words[2])
    for row, read in zip(rows, words, strict=True):
        start, stop = row.spans.prompt
        assert read.shape == (stop - start, case.backbone.hidden_size)
        (alone,) = case.backbone.word_states([row], 0)
        torch.testing.assert_close(alone, read, atol=1e-5, rtol=1e-5)


def test_targets_are_text_or_tokens_not_both(case: Case) -> None:
    with pytest.raises(ValueError, match="either"):
        case.backbone.prepare([PromptRow("a", None, target="b", target_ids=(5,))])


def test_the_context_has_an_end(case: Case) -> None:
    room = case.backbone.max_positions - len(case.backbone.lay_out("", has_image=True).ids)
    fits = "?" * (room - 2)
    assert case.backbone.lay_out(fits, has_image=True, target_ids=(5,)).ids
    with pytest.raises(ContextTooLong):
        case.backbone.lay_out(fits, has_image=True, target_ids=(5,) * 4)
    with pytest.raises(ContextTooLong):
        case.backbone.prepare([PromptRow("?" * case.backbone.max_positions, tiny_image(0))])


def test_pictures_are_seen_one_by_one_and_remembered(case: Case) -> None:
    images = [tiny_image(seed) for seed in range(4)]
    together = case.backbone.image_features(images)
    for image, features in zip(images, together, strict=True):
        assert case.backbone.image_features([image.copy()])[0] is features
        fresh = case.backbone.compute_features(image)
        assert torch.equal(fresh.patches, features.patches)
        assert np.array_equal(fresh.key, features.key)
        assert features.key.dtype == np.float32
        assert features.key.shape == (case.backbone.image_key_dim,)
        assert np.linalg.norm(features.key) == pytest.approx(1.0, abs=1e-6)
        assert features.patches.shape == (
            case.num_tokens(features),
            case.backbone.hidden_size,
        )


def test_features_may_be_handed_in(case: Case) -> None:
    features = case.backbone.image_features([tiny_image(0)])[0]
    shown = case.backbone.prepare([PromptRow("a", tiny_image(0))])
    given = case.backbone.prepare([PromptRow("a", features)])
    assert torch.equal(case.backbone.embed(given), case.backbone.embed(shown))


def test_image_keys_are_the_projection_of_the_model_beside_it(tiny_checkpoint: Path) -> None:
    clip = CLIPModel.from_pretrained(tiny_checkpoint / "clip").eval()
    backbone = load(tiny_checkpoint)
    pixels = AutoProcessor.from_pretrained(tiny_checkpoint / "model").image_processor(
        images=to_pil(tiny_image(3)), return_tensors="pt"
    )["pixel_values"]
    with torch.no_grad():
        expected = clip.get_image_features(pixels).pooler_output[0].numpy()
    key = backbone.image_features([tiny_image(3)])[0].key
    assert np.allclose(key, expected / np.linalg.norm(expected), atol=1e-6)
    assert backbone.image_key_model == "clip"


def test_a_tower_of_its_own_makes_the_keys_too(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A LLaVA whose tower drifted from the CLIPModel beside it still has that model's keys."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "drifted"))
    model = LlavaForConditionalGeneration.from_pretrained(folder / "model")
    with torch.no_grad():
        model.model.vision_tower.pre_layrnorm.weight.mul_(1.5)
    model.save_pretrained(folder / "model")
    write_manifest(folder)
    drifted = load(folder).image_features([tiny_image(3)])[0]
    original = load(tiny_checkpoint).image_features([tiny_image(3)])[0]
    assert np.array_equal(drifted.key, original.key)
    assert not torch.equal(drifted.patches, original.patches)


def test_a_tower_that_two_models_share_runs_once(tiny_checkpoint: Path, tmp_path: Path) -> None:
    plain = load_backbone(
        find_checkpoint(save_plain_llava(tmp_path)),
        Placement.resolve(),
        clip=tiny_checkpoint / "clip",
    )
    assert towers_run(lambda: plain.compute_features(tiny_image(3))) == 2
    backbone = load(tiny_checkpoint)
    assert towers_run(lambda: backbone.compute_features(tiny_image(3))) == 1


def towers_run(look: Callable[[], object]) -> int:
    """How many CLIP towers run while it looks."""
    ran: list[torch.nn.Module] = []

    def note(module: torch.nn.Module, *_: Any) -> None:
        if isinstance(module, CLIPEncoder):
            ran.append(module)

    handle = register_module_forward_hook(note)
    try:
        look()
    finally:
        handle.remove()
    return len(ran)


def test_without_a_model_beside_it_the_tower_itself_makes_the_keys(tmp_path: Path) -> None:
    folder = save_plain_llava(tmp_path)
    backbone = load(folder)
    stock = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    pixels = AutoProcessor.from_pretrained(folder).image_processor(
        images=to_pil(tiny_image(3)), return_tensors="pt"
    )["pixel_values"]
    with torch.no_grad():
        expected = stock.model.vision_tower(pixels).pooler_output[0].numpy()
    key = backbone.image_features([tiny_image(3)])[0].key
    assert np.allclose(key, expected / np.linalg.norm(expected), atol=1e-6)
    assert backbone.image_key_model == "tower-pooled"


def test_half_precision_runs(tiny_checkpoint: Path) -> None:
    backbone = load_backbone(find_checkpoint(tiny_checkpoint), Placement.resolve("cpu", "bf16"))
    logits, _ = backbone.prefill(backbone.prepare(ROWS))
    assert logits.dtype is torch.float32
    assert bool(logits.isfinite().all())


def test_a_configuration_that_lies_about_its_pictures_is_refused(tmp_path: Path) -> None:
    folder = save_plain_llava(tmp_path, image_size=60)
    with pytest.raises(CheckpointCorrupt, match=r"48.*60"):
        load(folder)


@pytest.mark.parametrize(("token", "said"), [(5, "disagree"), (99_999, "no token 99999")])
def test_an_image_token_that_the_processor_does_not_write_is_refused(
    tmp_path: Path, token: int, said: str
) -> None:
    folder = save_plain_llava(tmp_path)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["image_token_index"] = token
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(CheckpointCorrupt, match=said):
        load(folder)


def test_a_part_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownArchitecture, match=r"Linear has no model\.layers"):
        resolve_module(torch.nn.Linear(1, 1), "model.layers")
    with pytest.raises(UnknownArchitecture, match="ModuleList"):
        resolve_module(torch.nn.Sequential(torch.nn.Linear(1, 1)), "0", torch.nn.ModuleList)


def test_every_family_is_here() -> None:
    assert {"llava", *FAMILIES} == set(BACKBONES)


def test_an_unknown_family_is_told_which_are_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "oracle"}', "utf-8")
    with pytest.raises(UnknownArchitecture, match=r"'oracle'.*known:.*llava") as caught:
        load(tmp_path)
    assert "docs/adding.md" in caught.value.hint


def test_a_tower_without_keys_leaves_them_to_a_clip_model(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The one that is named, else the embedded model's; both are part of what the model is."""
    FAMILIES["qwen2_5_vl"].save(tmp_path)
    layout, placement = find_checkpoint(tmp_path), Placement.resolve()
    with caplog.at_level("INFO"):
        embedded = load_backbone(layout, placement)
    assert "the shipped embedded CLIP makes them" in caplog.text
    assert embedded.image_key_model == "heraldry-clip"
    named = load_backbone(layout, placement, clip=tiny_checkpoint / "clip")
    assert named.fingerprint != embedded.fingerprint
    assert named.image_key_model == "clip"
    clip = load(tiny_checkpoint).image_features([tiny_image(3)])[0].key
    assert np.allclose(named.image_features([tiny_image(3)])[0].key, clip, atol=1e-6)
    assert embedded.image_key_dim != named.image_key_dim == len(clip)


def test_a_clip_model_that_is_not_there_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    layout = find_checkpoint(tiny_checkpoint / "model")
    with pytest.raises(CheckpointMissing, match="holds no CLIPModel") as caught:
        load_backbone(layout, Placement.resolve(), clip=tmp_path)
    assert "--clip" in caught.value.hint


@pytest.mark.parametrize("with_code", [False, True])
def test_a_revision_is_asked_of_the_hub(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, with_code: bool
) -> None:
    """Code is fetched only where it is trusted."""
    asked: dict[str, Any] = {}

    def download(name: str, **given: Any) -> str:
        asked.update(given, name=name)
        return str(tiny_checkpoint)

    monkeypatch.setattr(loading, "snapshot_download", download)
    find_checkpoint("some/model", revision="v2", with_code=with_code)
    assert (asked["name"], asked["revision"]) == ("some/model", "v2")
    assert ("*.py" in asked["allow_patterns"]) is with_code


@pytest.mark.parametrize("name", ["no/such-model", "no such model", "/no/such/folder"])
def test_a_checkpoint_that_is_not_there_is_refused_by_name(name: str) -> None:
    with pytest.raises(CheckpointMissing, match=name):
        find_checkpoint(name)
