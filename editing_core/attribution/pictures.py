"""An attribution as a picture: the curve over the layers, and the map laid over what was asked."""

from __future__ import annotations

import io
import textwrap
import threading

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from numpy.typing import NDArray
from PIL import Image

from editing_core.attribution.attribute import Attribution
from editing_core.backbones.images import letterbox
from editing_core.types import ImageArray

_ATTENTION, _MLP, _CHOSEN = "#c1432e", "#8fa3b8", "#2d2d2d"
_SIDE = 512
_TITLE_COLUMNS = 80
_UNKNOWN, _CUT = "\u25a1", "\u2026"
_VEIL = 0.62
"""How much of the picture the map covers. Where nothing counts it is black, so that what counts is
the brightest even in a picture of white things."""

# matplotlib does not say that figures may be drawn in several threads at once.
_one_at_a_time = threading.Lock()


def draw_attribution(found: Attribution, image: ImageArray, prompt: str) -> bytes:
    """A PNG of about 1300 by 600 pixels, on white. May be called from any thread.

    Left, attention's and MLP's contribution in each block, with the recommended layer; right,
    `image` `uint8 [height, width, 3]` as the model sees it, under the map of influence.
    """
    picture = _shrunk(image)
    with _one_at_a_time:
        figure = Figure(figsize=(10, 4.7), layout="constrained", facecolor="white")
        curve, seen = figure.subplots(1, 2, width_ratios=(1.35, 1))
        _draw_curve(curve, found)
        _draw_map(seen, found, picture)
        figure.suptitle(_title(found, prompt), fontsize=12, parse_math=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _draw_curve(axes: Axes, found: Attribution) -> None:
    blocks = np.array([layer.layer for layer in found.layers])
    attention = [layer.attention for layer in found.layers]
    mlp = [layer.mlp for layer in found.layers]
    axes.bar(blocks, mlp, width=0.62, color=_MLP, alpha=0.55, label="MLP")
    axes.plot(blocks, attention, color=_ATTENTION, marker="o", linewidth=2.2, label="attention")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axvline(
        found.recommended_layer + 0.5,
        color=_CHOSEN,
        linestyle="--",
        linewidth=1.3,
        label=f"recommended: edit after block {found.recommended_layer}",
    )
    axes.set_xticks(blocks[:: 1 + len(blocks) // 17])
    axes.set_xlabel("block")
    axes.set_ylabel("contribution to the answer token")
    axes.set_title("Which modules make it", fontsize=10.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.12)
    axes.legend(loc="best", fontsize=8.5, frameon=False)


def _draw_map(axes: Axes, found: Attribution, picture: ImageArray) -> None:
    strength = _enlarged(found.influence, picture.shape[0])
    axes.imshow(picture)
    shown = axes.imshow(strength, cmap="inferno", vmin=0, vmax=1, alpha=_VEIL)
    axes.set_axis_off()
    blocks = ", ".join(map(str, found.influence_layers))
    axes.set_title(f"Where attention looks (blocks {blocks})", fontsize=10.5)
    bar = axes.figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03, ticks=[0, 1])
    bar.ax.set_yticklabels(["none", "most"], fontsize=8.5)
    bar.solids.set_alpha(1)  # type: ignore[union-attr]
    bar.outline.set_visible(False)


def _title(found: Attribution, prompt: str) -> str:
    answer = f"\u2192 {found.answer}"
    if found.token:
        answer += f"   (token {found.token}: {found.token_text})"
    return "\n".join(_wrapped(line) for line in (prompt, answer))


def _wrapped(text: str) -> str:
    """At most two lines, of characters that the font has."""
    font = get_font(findfont(FontProperties()))
    # A prompt may be a megabyte; two lines need no more than their own characters.
    words = " ".join(text[: 4 * _TITLE_COLUMNS].split())
    drawn = "".join(c if font.get_char_index(ord(c)) else _UNKNOWN for c in words)
    return textwrap.fill(drawn, _TITLE_COLUMNS, max_lines=2, placeholder=_CUT)


def _shrunk(image: ImageArray) -> ImageArray:
    """What the model sees, at the size it is drawn; shrunk before it is made square."""
    picture = Image.fromarray(image)
    scale = _SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    square = letterbox(np.asarray(picture.resize(size, Image.Resampling.BICUBIC)))
    return np.asarray(Image.fromarray(square).resize((_SIDE, _SIDE)))


def _enlarged(influence: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The map from 0 to 1, smoothly stretched over the picture. All zero where nothing counts."""
    strongest = float(influence.max())
    if strongest <= 0:
        return np.zeros((side, side), dtype=np.float32)
    small = Image.fromarray((influence / strongest).astype(np.float32))
    large = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
    bounded: NDArray[np.float32] = np.clip(large, 0, 1)
    return bounded
