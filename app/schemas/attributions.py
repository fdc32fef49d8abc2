"""Where an answer comes from."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from app.schemas.base import INT64, Prompt, Request
from editing_core.attribution.attribute import Attribution


class AttributionRequest(Request):
    """A question whose answer is to be explained, or rather one token of it."""

    image: str = Field(description="A data URI, or bare base64, of a PNG, JPEG, WebP or GIF.")
    prompt: Prompt
    token: Annotated[int, Field(ge=0, le=INT64)] = 0


class LayerView(BaseModel):
    layer: int
    attention: float
    mlp: float


class AttributionView(BaseModel):
    """`influence` has a line for each row of patches; `picture` is a PNG as a data URI."""

    answer: str
    token: int
    token_text: str
    layers: list[LayerView]
    recommended_layer: int
    grid: tuple[int, int]
    influence: list[list[float]]
    influence_layers: list[int]
    picture: str

    @classmethod
    def of(cls, found: Attribution, *, picture: str) -> AttributionView:
        return cls(
            answer=found.answer,
            token=found.token,
            token_text=found.token_text,
            layers=[
                LayerView(layer=block.layer, attention=block.attention, mlp=block.mlp)
                for block in found.layers
            ],
            recommended_layer=found.recommended_layer,
            grid=found.grid,
            influence=found.influence.tolist(),
            influence_layers=list(found.influence_layers),
            picture=picture,
        )
