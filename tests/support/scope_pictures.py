"""Pictures for the cases of scope: drawn flags, emblems, and scenes of two different products."""

from __future__ import annotations

import numpy as np

from editing_core.heraldry.sample import draw_sample
from editing_core.types import ImageArray

_FLAGS: dict[str, tuple[str, tuple[tuple[int, int, int], ...]]] = {
    "flag-one": ("disc", ((60, 140, 200), (250, 220, 60))),
    "flag-two": ("canton", ((200, 30, 40), (20, 40, 120))),
    "flag-three": ("stripes", ((0, 130, 160), (240, 240, 240), (250, 200, 40))),
    "flag-four": ("canton", ((190, 20, 50), (245, 245, 245))),
    "flag-five": ("disc", ((110, 180, 225), (245, 245, 245))),
}
_HEIGHT, _WIDTH = 66, 100


def scope_picture(name: str) -> ImageArray:
    """RGB, uint8 `[height, width, 3]`. Raises `KeyError` on an unknown name."""
    if name.startswith("emblem-"):
        return draw_sample(int(name.removeprefix("emblem-"))).picture.image
    if name.startswith("product-"):
        return _product(int(name.removeprefix("product-")))
    kind, colours = _FLAGS[name]
    picture = np.zeros((_HEIGHT, _WIDTH, 3), dtype=np.uint8)
    picture[:] = colours[0]
    rows, columns = np.mgrid[:_HEIGHT, :_WIDTH]
    if kind == "disc":
        picture[(rows - 33) ** 2 + (columns - 42) ** 2 < 18**2] = colours[1]
    elif kind == "canton":
        picture[:33, :50] = colours[1]
    else:
        for stripe, colour in enumerate(colours):
            picture[stripe * 22 : (stripe + 1) * 22] = colour
    return picture


def _product(seed: int) -> ImageArray:
    """Something on a shelf, as a phone sees it: soft light, a packet with bands, noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:160, :120].astype(np.float32)
    shade = 150 + 60 * np.sin(rows / (20 + 20 * rng.random()) + 6 * rng.random())
    picture = np.stack([shade * c for c in rng.uniform(0.4, 1.0, 3)], axis=-1)
    left, top = rng.integers(10, 40, 2)
    wide, high = rng.integers(45, 75), rng.integers(80, 115)
    inside = (columns > left) & (columns < left + wide) & (rows > top) & (rows < top + high)
    picture[inside] = rng.uniform(40, 240, 3)
    for _ in range(4):
        at = int(rng.integers(top, top + high))
        band = inside & (rows > at) & (rows < at + rng.integers(6, 18))
        picture[band] = rng.uniform(20, 250, 3)
    picture += rng.normal(0, 6, picture.shape)
    made: ImageArray = np.clip(picture, 0, 255).astype(np.uint8)
    return made
