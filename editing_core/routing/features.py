"""Routing features: what an edit is filed under, and what a query is looked up with.

Two extractors of one architecture and separate weights, one for edits, one for queries
(LiveEdit, section 2.4 of the method). With learned query slots `psi`, `phi`:

    textual key   psi_hat = CA(psi; LN(h_p))
    visual key    phi_hat = CA_2( CA_1(phi; LN(h_p)); LN(h_v) )        a prompt-guided look

`h_p` are the rows of the user's own words, never the template's or the answer's, and read without
the picture, so that a question is the same question about every picture; `h_v` the image rows.
Beyond the paper: a self-attention block over the words and a perceptron over the patches come
first, a perceptron per slot last, and keys are normalised, so that inner products are cosines: a
textual key as a whole, a visual key slot by slot, so that each slot can speak for one thing seen
(`scores`). Neighbouring questions ("left shape", "shape") and look-alike pictures need this.

The query side owns the *vision sentinel*: a learned fake image in the space of `h_v`, seen with
the query's own prompt. An edit must look more like the query than the sentinel does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """Multi-head attention of `[batch, a, width]` over `[batch, b, width]`."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, queries: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend; `mask` bool `[batch, b]` is true on the rows of `source` that exist."""
        return self.attend(queries, *self.read(source), mask)

    def read(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of `source`, `[batch, heads, b, width / heads]`."""
        return self._by_head(self.key(source)), self._by_head(self.value(source))

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """`forward` over what `read` gave."""
        where = None if mask is None else mask[:, None, None, :]
        own = self._by_head(self.query(queries))
        mixed = F.scaled_dot_product_attention(own, keys, values, attn_mask=where)
        return mixed.transpose(1, 2).flatten(2)

    def _by_head(self, rows: Tensor) -> Tensor:
        return rows.view(*rows.shape[:-1], self.heads, -1).transpose(1, 2)


class _Perceptron(nn.Module):
    """A residual two-layer perceptron on normalised rows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = rows + self.down(F.gelu(self.up(self.norm(rows))))
        return out


def _normalised(slots: Tensor) -> Tensor:
    """Scale `[batch, slots, width]` so that each whole key has length 1."""
    return F.normalize(slots.flatten(1), dim=1).view_as(slots)


class TextExtractor(nn.Module):
    """`h_p [batch, words, hidden] -> psi [batch, slots, width]`, of length 1."""

    def __init__(self, hidden: int, *, width: int, slots: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.enter = nn.Linear(hidden, width)
        self.mix_norm = nn.LayerNorm(width)
        self.mix = CrossAttention(width, heads=heads)
        self.think = _Perceptron(width)
        self.slots = nn.Parameter(torch.randn(slots, width))
        self.look_norm = nn.LayerNorm(width)
        self.look = CrossAttention(width, heads=heads)
        self.leave = _Perceptron(width)

    def forward(self, words: Tensor, mask: Tensor | None = None) -> Tensor:
        """Extract; `mask` bool `[batch, words]` is true on words that exist."""
        rows = self.enter(self.norm(words))
        mixed = self.mix_norm(rows)
        rows = self.think(rows + self.mix(mixed, mixed, mask))
        slots = self.slots.expand(len(words), -1, -1)
        return _normalised(self.leave(self.look(slots, self.look_norm(rows), mask)))


class VisualExtractor(nn.Module):
    """`h_p`, `h_v -> phi [batch, slots, width]`, each slot of length 1.

    The image side is split off, so that the patches of one picture are read once for any number
    of prompts, and the sentinel's only once.
    """

    def __init__(self, hidden: int, *, width: int, slots: int, heads: int) -> None:
        super().__init__()
        self.prompt_norm = nn.LayerNorm(hidden)
        self.prompt_enter = nn.Linear(hidden, width)
        self.patch_norm = nn.LayerNorm(hidden)
        self.patch_enter = nn.Linear(hidden, width)
        self.patch_think = _Perceptron(width)
        self.patch_look_norm = nn.LayerNorm(width)
        self.slots = nn.Parameter(torch.randn(slots, width))
        self.guide = CrossAttention(width, heads=heads)
        self.guide_think = _Perceptron(width)
        self.look = CrossAttention(width, heads=heads)
        self.leave = _Perceptron(width)

    def read_patches(self, patches: Tensor) -> Tensor:
        """`[batch, patches, hidden] -> [batch, patches, width]`."""
        rows = self.patch_think(self.patch_enter(self.patch_norm(patches)))
        out: Tensor = self.patch_look_norm(rows)
        return out

    def guided(self, words: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the prompt makes the slots look for, `[batch, slots, width]`."""
        rows = self.prompt_enter(self.prompt_norm(words))
        slots = self.slots.expand(len(words), -1, -1)
        out: Tensor = self.guide_think(slots + self.guide(slots, rows, mask))
        return out

    def look_at(self, guided: Tensor, patches: Tensor, mask: Tensor | None = None) -> Tensor:
        """`guided [batch, slots, width]` over `read_patches(...)` of as many pictures.

        `mask` bool `[batch, patches]` is true on patches that exist.
        """
        return self.finish(self.look(guided, patches, mask))

    def finish(self, mixed: Tensor) -> Tensor:
        """What the slots saw, `[batch, slots, width]`, each as a vector of length 1."""
        return F.normalize(self.leave(mixed), dim=-1)


class FeatureExtractor(nn.Module):
    """One side's textual and visual extractor."""

    def __init__(
        self, hidden: int, *, width: int, text_slots: int, visual_slots: int, heads: int
    ) -> None:
        super().__init__()
        self.text = TextExtractor(hidden, width=width, slots=text_slots, heads=heads)
        self.visual = VisualExtractor(hidden, width=width, slots=visual_slots, heads=heads)


class Sentinel(nn.Module):
    """The learned fake image, `[patches, hidden]`, one per router."""

    def __init__(self, patches: int, hidden: int) -> None:
        super().__init__()
        self.states = nn.Parameter(torch.randn(patches, hidden))

    @torch.no_grad()
    def start_from(self, image_states: Tensor) -> None:
        """Begin at the mean of real images' states `[images, patches, hidden]`."""
        mean = image_states.float().mean(0)
        self.states.copy_(mean + 0.1 * image_states.float().std() * torch.randn_like(mean))
