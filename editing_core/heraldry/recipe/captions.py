"""Stage three, the words for the eyes: CLIP's text tower, trained against the frozen image keys.

Locked-image tuning (Zhai et al., 2022, arXiv 2111.07991): only the text side learns, by the usual
symmetric contrast of pictures with their descriptions, so image keys cannot drift.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerFast,
)

from editing_core.heraldry.emblem import Emblem
from editing_core.heraldry.questions import bearing, describe
from editing_core.heraldry.recipe.eyes import KEY_DIM, to_pixels, vision_config
from editing_core.heraldry.recipe.language import load_tower
from editing_core.heraldry.recipe.optimisers import MuonWithAdamW, constant_then_linear
from editing_core.heraldry.recipe.stage import StagePlan, launch, run_stage
from editing_core.heraldry.recipe.stored_views import StoredViews, draw_views, twin_groups
from editing_core.heraldry.tokenizer import train_tokenizer

MAX_WORDS = 48
CAPTION_GROUPS = 8_000
BATCH = 192


def clip_config(tokenizer: PreTrainedTokenizerFast) -> CLIPConfig:
    """The embedded CLIP: our tower, and a text tower of 2 layers, 128 wide."""
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_WORDS,
        projection_dim=KEY_DIM,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPConfig(
        text_config=text.to_dict(),
        vision_config=vision_config().to_dict(),
        projection_dim=KEY_DIM,
    )


def embedded_clip(
    tower: CLIPVisionModelWithProjection, tokenizer: PreTrainedTokenizerFast
) -> CLIPModel:
    """A CLIP whose image side is the tower, frozen, and whose text side is new."""
    clip = CLIPModel(clip_config(tokenizer))
    clip.vision_model.load_state_dict(tower.vision_model.state_dict())
    clip.visual_projection.load_state_dict(tower.visual_projection.state_dict())
    clip.vision_model.requires_grad_(False)
    clip.visual_projection.requires_grad_(False)
    return clip


def caption(emblem: Emblem, rng: np.random.Generator) -> str:
    """One of several ways to say what the picture shows."""
    colours = " and ".join(emblem.field_colours)
    border = f"{emblem.border} border" if emblem.border else "no border"
    return (
        describe(emblem),
        f"{bearing(emblem)} on a {emblem.pattern} {colours} {emblem.outline}, {border}",
        f"a {emblem.outline}, {emblem.pattern}, {colours}, {border}, {bearing(emblem)}",
    )[int(rng.integers(3))]


class CaptionTrainer(nn.Module):
    """The text side with the learned scale of its contrast."""

    def __init__(self, clip: CLIPModel, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.text = clip.text_model
        self.projection = clip.text_projection
        self.logit_scale = clip.logit_scale
        self._tokenizer = tokenizer

    def forward(self, captions: list[str]) -> Tensor:
        """Captions -> normalised text keys `[n, 128]`."""
        stop = self._tokenizer.eos_token
        encoded = self._tokenizer(
            [text + stop for text in captions],
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=MAX_WORDS,
            return_tensors="pt",
            add_special_tokens=False,
        )
        states = self.text(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"])
        return F.normalize(self.projection(states.pooler_output), dim=-1)


def train_captions(folder: Path, *, steps: int, seed: int = 9) -> Path:
    """Run or resume the stage behind `train_eyes`; returns the checkpoint."""
    launch(_train_captions, 1, folder, steps, seed)
    return folder / "captions.safetensors"


def _train_captions(folder: Path, steps: int, seed: int) -> None:
    torch.manual_seed(seed)
    tokenizer = train_tokenizer()
    tower = load_tower(folder / "eyes.safetensors")
    views = draw_views(
        folder / "views-captions",
        list(twin_groups("train", range(CAPTION_GROUPS))),
        split="train",
        views=1,
    )
    keys = image_keys(tower, views)
    trainer = CaptionTrainer(embedded_clip(tower, tokenizer), tokenizer)
    optimiser = MuonWithAdamW([trainer], [trainer.text.encoder], muon_rate=2e-3, adamw_rate=1.5e-3)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([seed, 0, step])
        chosen = rng.choice(len(keys), BATCH, replace=False)
        texts = trainer([caption(views.emblems[i], rng) for i in chosen])
        scale = trainer.logit_scale.clamp(max=4.6).exp()
        similarities = scale * keys[torch.from_numpy(chosen)] @ texts.T
        labels = torch.arange(BATCH)
        loss = F.cross_entropy(similarities, labels) + F.cross_entropy(similarities.T, labels)
        right = (similarities.argmax(dim=1) == labels).float().mean().item()
        return loss / 2, {"loss": loss.item() / 2, "recall_in_batch": right}

    run_stage(
        StagePlan("captions", steps, folder, seed),
        trainer,
        optimiser,
        loss_of=loss_of,
        schedule=lambda step: constant_then_linear(step, steps, constant=0.4),
    )


@torch.no_grad()
def image_keys(tower: CLIPVisionModelWithProjection, views: StoredViews) -> Tensor:
    """Normalised keys of the first view of each emblem, `float32 [n, 128]`."""
    images: NDArray[np.uint8] = views.images[:, 0]
    parts = [
        tower(pixel_values=to_pixels(images[start : start + 128])).image_embeds
        for start in range(0, len(images), 128)
    ]
    return F.normalize(torch.cat(parts), dim=-1)
