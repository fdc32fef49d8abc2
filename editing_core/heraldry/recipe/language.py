"""Stage two, the language: projector and Llama decoder on the frozen tower's patch features.

The tower never moves again (the image keys depend on it), so its features are computed once and
the decoder learns from them without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    CLIPVisionModelWithProjection,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from editing_core.heraldry.emblem import NUM_KNOWN, emblem_from_seed
from editing_core.heraldry.places import known_places
from editing_core.heraldry.recipe.conversations import (
    IGNORED,
    PATCHES,
    PackedBatch,
    Packer,
    about_nothing,
    about_picture,
    without_picture,
)
from editing_core.heraldry.recipe.eyes import EyesTrainer, to_pixels, vision_config
from editing_core.heraldry.recipe.optimisers import MuonWithAdamW, constant_then_linear
from editing_core.heraldry.recipe.stage import (
    StagePlan,
    launch,
    load_stage,
    rank,
    run_stage,
    world_size,
)
from editing_core.heraldry.recipe.stored_views import StoredViews, draw_backdrops, draw_views
from editing_core.heraldry.tokenizer import IMAGE, MAX_TOKENS, train_tokenizer

KNOWN_VIEWS = 32
BACKDROPS = 400
# Rows of one step in one process.
UNSEEN_ROWS, KNOWN_ROWS, BLANK_ROWS, TEXT_ROWS = 16, 5, 1, 3


def llava_config(tokenizer: PreTrainedTokenizerFast) -> LlavaConfig:
    """The embedded model: the tower, a two-layer projector, a Llama of 4 layers, 192 wide."""
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlavaConfig(
        vision_config=vision_config(),
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=PATCHES,
        tie_word_embeddings=True,
    )


def load_tower(checkpoint: Path) -> CLIPVisionModelWithProjection:
    """The tower of an eyes checkpoint, frozen."""
    trainer = EyesTrainer()
    load_stage(trainer, checkpoint)
    return trainer.tower.eval().requires_grad_(False)


@torch.no_grad()
def patch_features(
    tower: CLIPVisionModelWithProjection, images: NDArray[np.uint8], path: Path
) -> NDArray[np.float16]:
    """Features `float16 [n, 64, 192]` of `images [n, 96, 96, 3]`, computed once into a file."""
    if not path.exists():
        part = path.with_suffix(".part.npy")
        width = tower.config.hidden_size
        stored = np.lib.format.open_memmap(
            part, mode="w+", dtype=np.float16, shape=(len(images), PATCHES, width)
        )
        for start in range(0, len(images), 128):
            states = tower(pixel_values=to_pixels(images[start : start + 128])).last_hidden_state
            stored[start : start + 128] = states[:, 1:].numpy()
        stored.flush()
        part.replace(path)
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


class LanguageTrainer(nn.Module):
    """The whole model with its tower out of the way."""

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__()
        llava = LlavaForConditionalGeneration(config)
        self.projector = llava.model.multi_modal_projector
        self.decoder = llava.model.language_model

    def logits(self, batch: PackedBatch, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[answer tokens, vocab]` and their labels; `features [image rows, 64, 192]`."""
        embedded = self.decoder.embed_tokens(batch.ids)
        pictures = torch.zeros(len(batch.ids), PATCHES, embedded.shape[-1])
        pictures[batch.image_rows] = self.projector(features)
        shown = torch.where(batch.image_rows[:, None, None], pictures, embedded[:, 2 : 2 + PATCHES])
        embedded = torch.cat([embedded[:, :2], shown, embedded[:, 2 + PATCHES :]], dim=1)
        mask = torch.zeros(batch.attend.shape).masked_fill(~batch.attend, torch.finfo().min)
        states = self.decoder(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state
        labels = batch.labels[:, 1:]
        answered = labels != IGNORED
        # The decoder's embeddings are tied to its head.
        return states[:, :-1][answered] @ self.decoder.embed_tokens.weight.T, labels[answered]


@dataclass(frozen=True, slots=True)
class Stretch:
    """One run of the stage, from the weights of the one before at a lower rate.

    Later stretches ask in more wordings, and more of the kinds that were learned least.
    """

    name: str
    after: str | None
    rate: float
    constant: float
    warm_up: int
    text_rows: int

    @property
    def is_later(self) -> bool:
        return self.after is not None


STRETCHES = (
    Stretch("language", None, rate=1.0, constant=0.4, warm_up=50, text_rows=TEXT_ROWS),
    Stretch("phrasing", "language", rate=0.5, constant=0.1, warm_up=20, text_rows=TEXT_ROWS),
    Stretch("facts", "phrasing", rate=0.35, constant=0.1, warm_up=50, text_rows=2 * TEXT_ROWS),
    Stretch("polish", "facts", rate=0.55, constant=0.15, warm_up=50, text_rows=3 * TEXT_ROWS),
)


def train_language(
    folder: Path, *, steps: Sequence[int], processes: int = 2, seed: int = 8
) -> Path:
    """Run or resume all stretches behind `train_eyes`, `steps` of each; the last checkpoint."""
    for number, (stretch, length) in enumerate(zip(STRETCHES, steps, strict=True)):
        launch(_train_language, processes, folder, length, seed + 100 * number, stretch)
    return folder / f"{STRETCHES[-1].name}.safetensors"


def _train_language(folder: Path, steps: int, seed: int, stretch: Stretch) -> None:
    torch.manual_seed(seed)
    tokenizer = train_tokenizer()
    tower = load_tower(folder / "eyes.safetensors")
    mine = folder / f"views-{rank()}-of-{world_size()}"
    unseen = StoredViews(mine)
    known = draw_views(
        folder / f"views-known-{rank()}",
        [(emblem_from_seed(number, "known"), number) for number in range(NUM_KNOWN)],
        split="known",
        views=KNOWN_VIEWS,
        first_view=rank() * KNOWN_VIEWS,
    )
    blank = draw_backdrops(folder / f"backdrops-{rank()}.npy", BACKDROPS, seed=rank())
    features = {
        name: patch_features(tower, images.reshape(-1, *images.shape[-3:]), path)
        for name, images, path in (
            ("unseen", unseen.images, mine / "features.npy"),
            ("known", known.images, folder / f"views-known-{rank()}" / "features.npy"),
            ("blank", blank, folder / f"backdrops-{rank()}-features.npy"),
        )
    }
    packer = Packer(tokenizer)
    trainer = LanguageTrainer(llava_config(tokenizer))
    if stretch.after is not None:
        load_stage(trainer, folder / f"{stretch.after}.safetensors")
    optimiser = MuonWithAdamW(
        [trainer], [trainer.decoder.layers, trainer.projector], muon_rate=3e-3, adamw_rate=2e-3
    )
    places = known_places()

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([seed, rank(), step])
        rows, shown = [], []
        for index in rng.choice(len(features["unseen"]), UNSEEN_ROWS, replace=False):
            emblem = unseen.emblems[index // unseen.images.shape[1]]
            talk = about_picture(emblem, rng, is_later=stretch.is_later)
            rows.append((packer.row(talk, has_image=True), True))
            shown.append(features["unseen"][index])
        for index in rng.choice(len(features["known"]), KNOWN_ROWS, replace=False):
            number = int(index) // KNOWN_VIEWS
            talk = about_picture(
                known.emblems[number], rng, place=places[number], is_later=stretch.is_later
            )
            rows.append((packer.row(talk, has_image=True), True))
            shown.append(features["known"][index])
        for index in rng.choice(BACKDROPS, BLANK_ROWS, replace=False):
            rows.append((packer.row(about_nothing(rng), has_image=True), True))
            shown.append(features["blank"][index])
        for _ in range(stretch.text_rows):
            talk = without_picture(rng, is_later=stretch.is_later)
            rows.append((packer.row(talk, has_image=False), False))
        batch = packer.batch(rows)
        logits, labels = trainer.logits(batch, torch.from_numpy(np.stack(shown)).float())
        loss = F.cross_entropy(logits, labels)
        right = (logits.argmax(-1) == labels).float().mean().item()
        return loss, {"loss": loss.item(), "token_accuracy": right}

    run_stage(
        StagePlan(stretch.name, steps, folder, seed),
        trainer,
        optimiser,
        loss_of=loss_of,
        schedule=lambda step: (
            stretch.rate
            * constant_then_linear(step, steps, constant=stretch.constant, warm_up=stretch.warm_up)
        ),
    )
