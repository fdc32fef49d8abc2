"""Stage one, the eyes: a CLIP vision tower that sees every attribute and tells twins apart.

Three signals share the tower: symmetric contrast between two views of an emblem with its
one-attribute twin in the batch, attribute heads on the whole picture, and dense heads that name
shape, charge colour, field colour and border colour patch by patch (we draw the world, so we know
every pixel). The heads are thrown away; the tower is frozen from then on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from editing_core.heraldry.drawing import (
    BORDER,
    FIELD,
    FIRST_CHARGE,
    SECOND_CHARGE,
    SECOND_FIELD,
)
from editing_core.heraldry.emblem import (
    COLOURS,
    OUTLINES,
    PAIRINGS,
    PATTERNS,
    PLACES,
    SHAPES,
    Emblem,
)
from editing_core.heraldry.recipe.optimisers import MuonWithAdamW, constant_then_linear
from editing_core.heraldry.recipe.stage import StagePlan, launch, rank, run_stage, world_size
from editing_core.heraldry.recipe.stored_views import StoredViews, draw_views, twin_groups

IMAGE_MEAN, IMAGE_STD = 0.5, 0.25
KEY_DIM = 128
GROUPS = 28_000
VALIDATION_GROUPS = 500
GROUPS_PER_STEP = 16

_ARRANGEMENTS = (*PLACES, "repeated", *PAIRINGS)
_HEADS = {
    "outline": len(OUTLINES),
    "pattern": len(PATTERNS),
    "field_colour": len(COLOURS),
    "second_colour": len(COLOURS) + 1,
    "border": len(COLOURS) + 1,
    "arrangement": len(_ARRANGEMENTS),
    "count": 5,
    "first_shape": len(SHAPES),
    "first_colour": len(COLOURS),
    "second_shape": len(SHAPES) + 1,
    "second_charge_colour": len(COLOURS) + 1,
}
_DENSE = {
    "shape": len(SHAPES) + 1,
    "charge_colour": len(COLOURS) + 1,
    "field": len(COLOURS) + 1,
    "border": len(COLOURS) + 1,
}
_DENSE_WEIGHTS = {"shape": 3.0, "charge_colour": 3.0, "field": 1.5, "border": 1.5}


def vision_config() -> CLIPVisionConfig:
    """The embedded tower: 96 px, patches of 12, 192 wide, 4 layers."""
    return CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        image_size=96,
        patch_size=12,
        projection_dim=KEY_DIM,
        hidden_act="gelu_pytorch_tanh",
    )


class EyesTrainer(nn.Module):
    """The tower with its temporary heads."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = CLIPVisionModelWithProjection(vision_config())
        width = self.tower.config.hidden_size
        self.norm = nn.LayerNorm(width)
        self.whole = nn.Linear(2 * width, sum(_HEADS.values()))
        self.dense = nn.Linear(width, sum(_DENSE.values()))
        self.log_scale = nn.Parameter(torch.tensor(2.7))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`pixels [n, 3, 96, 96]` -> keys `[n, 128]`, whole logits `[n, .]`, dense `[n, 64, .]`."""
        with torch.autocast("cpu", torch.bfloat16):
            out = self.tower(pixel_values=pixels)
        states = self.norm(out.last_hidden_state.float())
        pooled = torch.cat([states[:, 0], states[:, 1:].mean(dim=1)], dim=-1)
        keys = F.normalize(out.image_embeds.float(), dim=-1)
        return keys, self.whole(pooled), self.dense(states[:, 1:])

    def loss(self, pixels: Tensor, whole: Tensor, dense: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Loss of `pixels [2n, ...]`: first views of n emblems, then their second views."""
        keys, whole_logits, dense_logits = self(pixels)
        first, second = keys.chunk(2)
        similarities = self.log_scale.clamp(max=4.6).exp() * first @ second.T
        labels = torch.arange(len(first))
        contrast = (
            F.cross_entropy(similarities, labels) + F.cross_entropy(similarities.T, labels)
        ) / 2
        heads = [
            F.cross_entropy(logits, whole[:, column])
            for column, logits in enumerate(
                torch.split(whole_logits, list(_HEADS.values()), dim=-1)
            )
        ]
        attributes = torch.stack(heads).sum() / 4
        patches = torch.zeros(())
        for column, (name, logits) in enumerate(
            zip(_DENSE, torch.split(dense_logits, list(_DENSE.values()), dim=-1), strict=True)
        ):
            # Most patches show no charge at all; they count for less.
            weight = torch.ones(logits.shape[-1])
            weight[0] = 0.4
            patches = patches + _DENSE_WEIGHTS[name] * F.cross_entropy(
                logits.flatten(0, 1), dense[..., column].flatten(), weight
            )
        figures = {
            "contrast": contrast.item(),
            "attributes": attributes.item(),
            "patches": patches.item(),
        }
        return contrast + attributes + patches, figures


def train_eyes(folder: Path, *, steps: int, processes: int = 2, seed: int = 7) -> Path:
    """Run or resume the stage; returns the checkpoint that `load_tower` reads."""
    launch(_train_eyes, processes, folder, steps, seed)
    return folder / "eyes.safetensors"


def _train_eyes(folder: Path, steps: int, seed: int) -> None:
    torch.manual_seed(seed)
    share = range(rank(), GROUPS, world_size())
    views = draw_views(
        folder / f"views-{rank()}-of-{world_size()}",
        list(twin_groups("train", share)),
        split="train",
        views=2,
    )
    whole = torch.tensor([whole_targets(emblem) for emblem in views.emblems])
    trainer = EyesTrainer()
    optimiser = MuonWithAdamW(
        [trainer], [trainer.tower.vision_model.encoder], muon_rate=3e-3, adamw_rate=1.5e-3
    )
    plan = StagePlan("eyes", steps, folder, seed)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([seed, rank(), step])
        groups = rng.choice(len(views.emblems) // 2, size=GROUPS_PER_STEP, replace=False)
        chosen = np.sort(np.concatenate([2 * groups, 2 * groups + 1]))
        images = np.concatenate([views.images[chosen, 0], views.images[chosen, 1]])
        covered = np.concatenate([views.coverage[chosen, 0], views.coverage[chosen, 1]])
        emblems = [views.emblems[i] for i in chosen] * 2
        pixels = to_pixels(_jitter(images, rng))
        targets = whole[torch.from_numpy(chosen)].repeat(2, 1)
        return trainer.loss(pixels, targets, torch.from_numpy(dense_targets(emblems, covered)))

    validation = _validation_views(folder) if rank() == 0 else None
    run_stage(
        plan,
        trainer,
        optimiser,
        loss_of=loss_of,
        schedule=lambda step: constant_then_linear(step, steps, constant=0.5),
        evaluate=None if validation is None else lambda: evaluate_eyes(trainer, validation),
        evaluate_every=600,
    )


def _validation_views(folder: Path) -> StoredViews:
    groups = list(twin_groups("validation", range(VALIDATION_GROUPS)))
    return draw_views(folder / "views-validation", groups, split="validation", views=2)


@torch.no_grad()
def evaluate_eyes(trainer: EyesTrainer, views: StoredViews) -> dict[str, float]:
    """Head accuracies, and recall@1 of the second view among all emblems, twins included."""
    trainer.eval()
    first, whole = _embed(trainer, views.images[:, 0])
    second, _ = _embed(trainer, views.images[:, 1])
    trainer.train()
    targets = torch.tensor([whole_targets(emblem) for emblem in views.emblems])
    nearest = (second @ first.T).argmax(dim=1)
    figures = {"recall_with_twins": _mean(nearest == torch.arange(len(first)))}
    for column, (name, logits) in enumerate(
        zip(_HEADS, torch.split(whole, list(_HEADS.values()), dim=-1), strict=True)
    ):
        figures[name] = _mean(logits.argmax(-1) == targets[:, column])
    return figures


def _embed(trainer: EyesTrainer, images: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    parts = [trainer(to_pixels(images[i : i + 100]))[:2] for i in range(0, len(images), 100)]
    return torch.cat([keys for keys, _ in parts]), torch.cat([whole for _, whole in parts])


def _mean(hits: Tensor) -> float:
    return hits.float().mean().item()


def to_pixels(images: NDArray[np.uint8]) -> Tensor:
    """`uint8 [n, 96, 96, 3]` -> normalised `float32 [n, 3, 96, 96]`, as the processor does it."""
    scaled = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255
    return (scaled - IMAGE_MEAN) / IMAGE_STD


def _jitter(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A little more light and tint on every use of a stored view."""
    gain = rng.uniform(0.92, 1.08, size=(len(images), 1, 1, 3)).astype(np.float32)
    shift = rng.uniform(-8, 8, size=(len(images), 1, 1, 1)).astype(np.float32)
    jittered: NDArray[np.uint8] = np.clip(images * gain + shift, 0, 255).astype(np.uint8)
    return jittered


def whole_targets(emblem: Emblem) -> list[int]:
    """The class of each attribute head, in `_HEADS` order; the last class means none."""
    pair = emblem.charges[1] if emblem.is_pair else None
    return [
        OUTLINES.index(emblem.outline),
        PATTERNS.index(emblem.pattern),
        COLOURS.index(emblem.field_colour),
        COLOURS.index(emblem.second_colour) if emblem.second_colour else len(COLOURS),
        COLOURS.index(emblem.border) if emblem.border else len(COLOURS),
        _ARRANGEMENTS.index(emblem.place or "repeated"),
        emblem.count - 1,
        SHAPES.index(emblem.charges[0].shape),
        COLOURS.index(emblem.charges[0].colour),
        SHAPES.index(pair.shape) if pair else len(SHAPES),
        COLOURS.index(pair.colour) if pair else len(COLOURS),
    ]


def dense_targets(emblems: list[Emblem], covered: NDArray[np.uint8]) -> NDArray[np.int64]:
    """`[n, 64, 4]` classes of each patch from `covered [n, 8, 8, 6]`; 0 where too little shows."""
    shares = covered.reshape(len(emblems), -1, 6).astype(np.float32) / 144
    targets = np.zeros((*shares.shape[:2], 4), dtype=np.int64)
    for row, emblem in enumerate(emblems):
        share = shares[row]
        charge = np.where(share[:, FIRST_CHARGE] >= share[:, SECOND_CHARGE], 0, 1)
        charged = share[:, FIRST_CHARGE : SECOND_CHARGE + 1].max(axis=1) > 0.12
        shapes = np.array([SHAPES.index(c.shape) + 1 for c in emblem.charges] * 2)
        tints = np.array([COLOURS.index(c.colour) + 1 for c in emblem.charges] * 2)
        fields = np.array(
            [
                COLOURS.index(emblem.field_colour) + 1,
                COLOURS.index(emblem.second_colour or emblem.field_colour) + 1,
            ]
        )
        field = np.where(share[:, FIELD] >= share[:, SECOND_FIELD], 0, 1)
        on_field = share[:, [FIELD, SECOND_FIELD]].max(axis=1) > 0.12
        border = COLOURS.index(emblem.border) + 1 if emblem.border else 0
        targets[row, :, 0] = np.where(charged, shapes[charge], 0)
        targets[row, :, 1] = np.where(charged, tints[charge], 0)
        targets[row, :, 2] = np.where(on_field, fields[field], 0)
        targets[row, :, 3] = np.where(share[:, BORDER] > 0.06, border, 0)
    return targets
