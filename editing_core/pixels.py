"""Pictures of any mode as plain pixels: what every reader of files and bytes does alike."""

from __future__ import annotations

import numpy as np
from PIL import Image


def flatten(picture: Image.Image) -> Image.Image:
    """RGB, 8 bits; transparency lies on white."""
    if picture.mode.startswith("I"):  # 16 bit grey; the high byte, as for 16 bit colour
        deep = np.asarray(picture)
        grey = (deep.clip(0, 65535) >> 8).astype(np.uint8)
        if isinstance(transparent := picture.info.get("transparency"), int):
            grey[deep == transparent] = 255
        return Image.fromarray(grey).convert("RGB")
    if "A" in picture.getbands() or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        ground = Image.new("RGB", layered.size, "white")
        ground.paste(layered, mask=layered.getchannel("A"))
        return ground
    return picture.convert("RGB")
