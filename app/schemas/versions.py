"""What is running."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class BackboneView(BaseModel):
    name: str
    fingerprint: str
    device: str
    dtype: str
    quantization: str


class RouterView(BaseModel):
    fingerprint: str
    tau: float
    rho: float
    false_fire_rate: float | None
    image_key_model: str


class QuestionEncoderView(BaseModel):
    """What compares questions. `rho` is the gate below which no edit fires, at `prefer`."""

    fingerprint: str
    prefer: str
    rho: float


class EyesView(BaseModel):
    """What makes the image keys of pictures that the model's own CLIP does not know."""

    fingerprint: str


class EditorView(BaseModel):
    fingerprint: str
    default: bool


class WebhookView(BaseModel):
    """How far the webhook's receiver has been told. `behind`: messages that wait, at least.

    `failing` says why the last attempt came to nothing.
    """

    model_config = ConfigDict(from_attributes=True)

    host: str
    version: int
    behind: int
    delivered_at: str | None
    failing: str | None


class Versions(BaseModel):
    version: int
    active_edits: int
    stale_edits: int
    backbone: BackboneView
    router: RouterView
    question_encoder: QuestionEncoderView | None
    eyes: EyesView | None
    editors: dict[str, EditorView]
    webhook: WebhookView | None
