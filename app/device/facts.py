"""What the service needs to know of the model that is served, as one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.words import ModelWords
from editing_core.experts.memory import Snapshot, Source
from editing_core.stock_questions import StockQuestion

if TYPE_CHECKING:
    from editing_core.editable_model import EditableModel


@dataclass(frozen=True, slots=True)
class QuestionEncoderFacts:
    """What compares questions. `rho` is the gate below which no edit fires, at `prefer`."""

    fingerprint: str
    prefer: str
    rho: float


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Of one loaded model; they never change. `editors` are fingerprints by name."""

    device: str
    dtype: str
    quantization: str
    backbone: str
    router: str
    editors: Mapping[str, str]
    eyes: str
    default_editor: str | None
    tau: float
    rho: float
    false_fire_rate: float | None
    image_key_model: str
    image_key_dim: int
    questions: QuestionEncoderFacts | None
    stock_questions: tuple[StockQuestion, ...]
    words: ModelWords
    picture_tokens: int
    """Of the usual picture."""
    template_tokens: int
    """Of what stands around a message."""

    @classmethod
    def of(cls, model: EditableModel) -> ModelFacts:
        backbone, router, encoder = model.backbone, model.router, model.questions
        prefer = router.thresholds.prefer
        return cls(
            device=str(backbone.placement.device),
            dtype=backbone.placement.dtype_name,
            quantization=backbone.placement.quantization,
            backbone=model.backbone_fingerprint,
            router=model.router_fingerprint,
            editors=dict(model.editor_fingerprints),
            eyes=model.eyes_fingerprint,
            default_editor=model.default_editor,
            tau=router.tau,
            rho=router.rho,
            false_fire_rate=router.false_fire_rate,
            image_key_model=router.image_key_model,
            image_key_dim=backbone.image_key_dim,
            questions=None
            if encoder is None
            else QuestionEncoderFacts(encoder.fingerprint, prefer, encoder.line.rho[prefer]),
            stock_questions=model.stock_questions,
            words=ModelWords.of(backbone),
            picture_tokens=backbone.num_image_tokens,
            template_tokens=len(backbone.lay_out("", has_image=False).ids),
        )

    def empty_snapshot(self, source: Source | None = None) -> Snapshot:
        """Version 0: no edits. `source` has those that are not held."""
        return Snapshot.empty(self.image_key_dim, source=source)

    def most_tokens(self, texts: Sequence[str], *, pictures: int, max_new_tokens: int) -> int:
        """What a conversation and its answer come to at most, if pictures are of the usual size.

        No token of a text is less than a byte.
        """
        around = self.template_tokens * len(texts) + self.picture_tokens * pictures
        asked = around + sum(len(text.encode()) for text in texts)
        return min(self.words.max_positions, asked + max_new_tokens)
