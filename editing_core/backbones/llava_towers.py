"""What LLaVA's families look with, and which image tokens come of one square of the picture.

The model decides: processors of older checkpoints do not know it, or say what is not so. A CLIP
tower puts a class token before the patches and a SigLIP tower does not; the strategy `default`
takes off whatever comes first, `full` takes off nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from editing_core.errors import UnknownArchitecture

_CLASS_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0}


@dataclass(frozen=True, slots=True)
class SquareTokens:
    """Of one square: `side` patches a side after `leading` class tokens (-1: a patch is cut off).

    `class_tokens` is how many of them the tower makes.
    """

    side: int
    leading: int
    class_tokens: int

    @property
    def count(self) -> int:
        return self.side**2 + self.leading

    @property
    def grid(self) -> tuple[tuple[int, int] | None, int]:
        """As `StockBackbone.grid` gives it; patches of which one is cut off have no place."""
        return (None, 0) if self.leading < 0 else ((self.side, self.side), self.leading)


def square_tokens(config: Any) -> SquareTokens:
    """Read off a model's configuration.

    Raises `UnknownArchitecture` for a tower that is none of those known here.
    """
    vision = config.vision_config
    if vision.model_type not in _CLASS_TOKENS:
        known = ", ".join(sorted(_CLASS_TOKENS))
        raise UnknownArchitecture(
            f"a {config.model_type} model that looks with {vision.model_type!r} cannot be served; "
            f"known towers: {known}"
        )
    class_tokens = _CLASS_TOKENS[vision.model_type]
    cut = int(config.vision_feature_select_strategy == "default")
    side = int(vision.image_size // vision.patch_size)
    return SquareTokens(side, class_tokens - cut, class_tokens)
