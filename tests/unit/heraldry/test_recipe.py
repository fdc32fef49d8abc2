"""The recipe: packed rows are single conversations, stages resume exactly, targets fit pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from editing_core.heraldry.emblem import emblem_from_seed
from editing_core.heraldry.recipe.conversations import (
    IGNORED,
    PATCHES,
    Packer,
    about_picture,
    without_picture,
)
from editing_core.heraldry.recipe.eyes import dense_targets, whole_targets
from editing_core.heraldry.recipe.language import LanguageTrainer, llava_config
from editing_core.heraldry.recipe.optimisers import MuonWithAdamW, constant_then_linear
from editing_core.heraldry.recipe.stage import StagePlan, run_stage, stage_seconds
from editing_core.heraldry.recipe.stored_views import StoredViews, draw_views, twin_groups
from editing_core.heraldry.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer()


def templated(tokenizer: PreTrainedTokenizerFast, turns: list[tuple[str, str]]) -> list[int]:
    messages: list[dict[str, object]] = []
    for number, (said, answer) in enumerate(turns):
        picture = [{"type": "image"}] if number == 0 else []
        messages.append({"role": "user", "content": [*picture, {"type": "text", "text": said}]})
        messages.append({"role": "assistant", "content": answer})
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    at = ids.index(tokenizer.convert_tokens_to_ids("<image>"))
    return [*ids[:at], *[ids[at]] * PATCHES, *ids[at + 1 :]]


@pytest.mark.parametrize(
    "turns",
    [
        [("What colour is the star?", "red")],
        [("How many?", "two"), ("And the colour?", "blue and white")],
        [("  spaces  ", "синий 红色 🙂")],
    ],
)
def test_a_row_is_what_the_chat_template_writes(
    tokenizer: PreTrainedTokenizerFast, turns: list[tuple[str, str]]
) -> None:
    row = Packer(tokenizer).row([turns], has_image=True)
    assert row.ids == templated(tokenizer, turns)
    answered = [token for token, label in zip(row.ids, row.labels, strict=True) if label != IGNORED]
    stop = tokenizer.eos_token or ""
    assert tokenizer.decode(answered) == "".join(answer + stop for _, answer in turns)


def test_packing_changes_no_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    trainer = LanguageTrainer(llava_config(tokenizer)).eval()
    packer = Packer(tokenizer)
    features = torch.randn(1, PATCHES, 192)
    rng = np.random.default_rng(3)
    talk = about_picture(emblem_from_seed(3), rng)
    with torch.no_grad():
        together, _ = trainer.logits(
            packer.batch([(packer.row(talk, has_image=True), True)]), features
        )
        alone = torch.cat(
            [
                trainer.logits(packer.batch([(packer.row([one], has_image=True), True)]), features)[
                    0
                ]
                for one in talk
            ]
        )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    for text in ("синяя звезда", "红色的星星", "🙂🐟", "a\tb", "naïve café"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text


def test_later_stretches_ask_in_more_wordings() -> None:
    emblem = emblem_from_seed(3)
    asked = [
        turn[0]
        for seed in range(60)
        for talk in about_picture(emblem, np.random.default_rng(seed), is_later=True)
        for turn in talk
    ]
    assert any("say whether" in question.lower() for question in asked)
    assert any("is there" in question.lower() for question in asked)


def test_text_rows_have_no_picture(tokenizer: PreTrainedTokenizerFast) -> None:
    row = Packer(tokenizer).row(without_picture(np.random.default_rng(0)), has_image=False)
    assert tokenizer.convert_tokens_to_ids("<image>") not in row.ids
    assert any(label != IGNORED for label in row.labels)


def small_task(folder: Path, steps: int, *, stop_at: int | None = None) -> nn.Linear:
    torch.manual_seed(1)
    model = nn.Linear(4, 4)
    optimiser = MuonWithAdamW([model], [model], muon_rate=1e-2, adamw_rate=1e-2)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        if step == stop_at:
            raise KeyboardInterrupt
        rng = torch.Generator().manual_seed(step)
        loss = (model(torch.randn(8, 4, generator=rng)) - 1).square().mean()
        return loss, {"loss": loss.item()}

    run_stage(
        StagePlan("small", steps, folder, checkpoint_seconds=0),
        model,
        optimiser,
        loss_of=loss_of,
        schedule=lambda step: constant_then_linear(step, steps, constant=0.5, warm_up=2),
    )
    return model


def test_a_killed_stage_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole = small_task(tmp_path / "whole", 12)
    with pytest.raises(KeyboardInterrupt):
        small_task(tmp_path / "killed", 12, stop_at=7)
    resumed = small_task(tmp_path / "killed", 12)
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)
    assert stage_seconds(StagePlan("small", 12, tmp_path / "killed")) > 0


def test_the_rate_rises_holds_and_falls() -> None:
    rates = [constant_then_linear(step, 100, constant=0.5, warm_up=10) for step in range(101)]
    assert rates[0] < rates[9] == 1.0 == rates[49]
    assert rates[75] == pytest.approx(0.5)
    assert rates[100] == 0.0


def test_stored_views_come_back_with_their_emblems(tmp_path: Path) -> None:
    groups = list(twin_groups("validation", range(3)))
    drawn = draw_views(tmp_path / "views", groups, split="validation", views=2)
    again = StoredViews(tmp_path / "views")
    assert again.emblems == [emblem for emblem, _ in groups]
    assert np.array_equal(drawn.images, again.images)
    targets = dense_targets(again.emblems, again.coverage[:, 0])
    assert targets.shape == (6, 64, 4)
    for row, emblem in enumerate(again.emblems):
        whole = whole_targets(emblem)
        assert len(whole) == 11
        # The charge's shape is named in some patch, and no other shape is.
        expected = {whole[7] + 1} | ({whole[9] + 1} if emblem.is_pair else set())
        assert set(targets[row, :, 0]) - {0} == expected
