"""Views: the same emblem seen differently (pose, scale, background, light, blur, noise).

A view is a pure function of the emblem, the split and two numbers. Views used in training come
from streams of their own, so no public view index ever names one of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from editing_core.heraldry.drawing import CANVAS, draw_emblem
from editing_core.heraldry.emblem import Emblem, Split, stream

VIEW_SIZE = 96
Purpose = Literal["public", "training"]


@dataclass(frozen=True, slots=True)
class View:
    """One picture of an emblem: RGB `uint8 [96, 96, 3]` and its region map `uint8 [96, 96]`."""

    image: NDArray[np.uint8]
    regions: NDArray[np.uint8]

    def box(self, labels: tuple[int, ...]) -> tuple[int, int, int, int] | None:
        """Bounding box `(x0, y0, x1, y1)`, in pixels, of the given regions; None if unseen."""
        rows, columns = np.nonzero(np.isin(self.regions, labels))
        if rows.size == 0:
            return None
        return (
            int(columns.min()),
            int(rows.min()),
            int(columns.max()) + 1,
            int(rows.max()) + 1,
        )


def view_of(
    emblem: Emblem, *, seed: int, view: int, split: Split = "unseen", purpose: Purpose = "public"
) -> View:
    """View `view` of the emblem of `seed`; 0 is an ordinary one. Same arguments, same view."""
    rng = stream(split, seed, view, 1 if purpose == "public" else 2)
    return render_view(*draw_emblem(emblem), rng)


def render_view(picture: Image.Image, regions: Image.Image, rng: np.random.Generator) -> View:
    """Warp a drawn emblem onto a background and photograph it."""
    affine = _affine(rng)
    warped = picture.transform(
        (CANVAS, CANVAS), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
    ).reduce(CANVAS // VIEW_SIZE)
    labels = regions.transform(
        (CANVAS, CANVAS), Image.Transform.AFFINE, affine, Image.Resampling.NEAREST
    ).resize((VIEW_SIZE, VIEW_SIZE), Image.Resampling.NEAREST)
    scene = _background(rng)
    scene.paste(warped, (0, 0), warped)
    blur = rng.uniform(-0.5, 1.1)
    if blur > 0.15:
        scene = scene.filter(ImageFilter.GaussianBlur(blur))
    return View(image=_photograph(scene, rng), regions=np.array(labels))


def _affine(rng: np.random.Generator) -> tuple[float, ...]:
    """PIL's inverse map (canvas pixel of the view -> canvas pixel of the emblem)."""
    angle = math.radians(rng.uniform(-18, 18))
    scale = rng.uniform(0.68, 1.0)
    aspect = rng.uniform(0.9, 1.1)
    shear = rng.uniform(-0.12, 0.12)
    room = 0.5 * (1 - scale) * CANVAS + 4
    shift = rng.uniform(-room, room, size=2)
    cos, sin = math.cos(angle), math.sin(angle)
    rotation = np.array([[cos, -sin], [sin, cos]])
    forward = rotation @ np.array([[1.0, shear], [0.0, 1.0]])
    forward = forward @ np.diag([scale * math.sqrt(aspect), scale / math.sqrt(aspect)])
    inverse = np.linalg.inv(forward)
    centre = np.full(2, CANVAS / 2)
    offset = centre - inverse @ (centre + shift)
    return (*inverse[0], offset[0], *inverse[1], offset[1])


def _background(rng: np.random.Generator) -> Image.Image:
    """A soft blotchy backdrop in muted colours."""
    side = int(rng.integers(2, 8))
    base = rng.uniform(50, 200) + rng.uniform(-35, 35, size=3)
    blotches = base + rng.normal(0, rng.uniform(6, 34), size=(side, side, 3))
    small = Image.fromarray(np.clip(blotches, 0, 255).astype(np.uint8))
    return small.resize((VIEW_SIZE, VIEW_SIZE), Image.Resampling.BICUBIC)


def _photograph(scene: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light, tint and sensor noise."""
    pixels = np.asarray(scene, dtype=np.float32)
    tint = (1 + rng.uniform(-0.07, 0.07, size=3)) * rng.uniform(0.74, 1.12)
    slope = rng.uniform(-0.16, 0.16, size=2)
    ramp = np.linspace(-1, 1, VIEW_SIZE, dtype=np.float32)
    light = 1 + slope[0] * ramp[None, :] + slope[1] * ramp[:, None]
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * rng.uniform(0, 11)
    pixels = pixels * tint.astype(np.float32) * light.astype(np.float32)[:, :, None] + noise
    photograph: NDArray[np.uint8] = np.clip(pixels, 0, 255).astype(np.uint8)
    return photograph
