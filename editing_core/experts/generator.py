"""Expert generators: modules that turn one edit's base states into one expert, without a gradient.

`AlignedGenerator` ties each slot to one target token; `FreeGenerator` is the paper's, a few
learned queries that read the whole row (LiveEdit, section 2.3 of the method; equations 2 and 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from editing_core.experts.free import FreeExpert
from editing_core.experts.slots import SlotExpert, standardise


class CrossAttention(nn.Module):
    """`CA(x; y)`: multi-head cross-attention with biases and no output projection.

    `y` is layer-normed first, by this module's own norm. Queries are `[batch, a, query_width]`,
    sources `[batch, b, source_width]`, the result `[batch, a, out_width]`.
    """

    def __init__(
        self, query_width: int, source_width: int, *, width: int, out_width: int, heads: int
    ) -> None:
        super().__init__()
        if width % heads or out_width % heads:
            raise ValueError(f"widths {width} and {out_width} must be multiples of {heads} heads")
        self.heads = heads
        self.norm = nn.LayerNorm(source_width)
        self.query = nn.Linear(query_width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, out_width)

    def forward(self, queries: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend; `mask` bool `[batch, b]` is true on the rows of `source` that exist."""
        source = self.norm(source)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(queries), self.key(source), self.value(source))
        )
        where = None if mask is None else mask[:, None, None, :]
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=where)
        return mixed.transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class EditBatch:
    """The teacher-forced rows of several edits, padded on the right.

    `signal` float32 `[edits, rows, hidden]` with `signal_mask`: image, prompt and answer rows.
    `predicting` float32 `[edits, slots, hidden]`, the rows that predict each target token;
    `embeddings` likewise, the tokens' embeddings; `counts` the number of slots of each edit.
    """

    signal: Tensor
    signal_mask: Tensor
    predicting: Tensor
    embeddings: Tensor
    counts: tuple[int, ...]

    @classmethod
    def collate(
        cls, signals: Sequence[Tensor], predicting: Sequence[Tensor], embeddings: Sequence[Tensor]
    ) -> EditBatch:
        """Pad the rows of several edits into one batch."""
        lengths = torch.tensor([len(s) for s in signals], device=signals[0].device)
        padded = pad_sequence(list(signals), batch_first=True)
        return cls(
            signal=padded,
            signal_mask=torch.arange(padded.shape[1], device=padded.device) < lengths[:, None],
            predicting=pad_sequence(list(predicting), batch_first=True),
            embeddings=pad_sequence(list(embeddings), batch_first=True),
            counts=tuple(len(p) for p in predicting),
        )


def _mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Two layers whose last starts at zero, so that training begins from the linear part."""
    last = nn.Linear(width, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), last)


def _set_scale(log_scale: nn.Parameter, states: Tensor) -> None:
    with torch.no_grad():
        log_scale.copy_(states.float().pow(2).mean().sqrt().log())


class AlignedGenerator(nn.Module):
    """One slot per target token. With `x = LN(h[p_i])` and `e` the embedding of token `i`:

        u_i = ( W_u x + MLP_u(x) + CA(x; [h_v; h_p; h_o]) ) / sqrt(hidden)
        v_i = s ( W_v e + MLP_v([e; x]) )

    The learned null logit and the affine part of the norm are folded into the expert, so `down`
    and `bias` are read with the parameter-free norm (see `slots`). Embeddings are standardised
    and `s` starts at the size of the states, because both differ between models by orders of
    magnitude.
    """

    def __init__(self, hidden: int, *, heads: int = 8, gamma: float = 2.0) -> None:
        super().__init__()
        self.hidden = hidden
        self.norm = nn.LayerNorm(hidden)
        self.look = nn.Linear(hidden, hidden, bias=False)
        self.look_mlp = _mlp(hidden, 2 * hidden, hidden)
        self.look_around = CrossAttention(
            hidden, hidden, width=hidden, out_width=hidden, heads=heads
        )
        self.write = nn.Linear(hidden, hidden, bias=False)
        self.write_mlp = _mlp(2 * hidden, 2 * hidden, hidden)
        self.log_gamma = nn.Parameter(torch.tensor(gamma).log())
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.null = nn.Parameter(torch.zeros(()))
        nn.init.eye_(self.look.weight)
        nn.init.eye_(self.write.weight)

    def start_from(self, states: Tensor) -> None:
        """Begin with experts as strong as the states `[rows, hidden]` they are added to."""
        _set_scale(self.log_scale, states)

    def forward(self, batch: EditBatch) -> list[SlotExpert]:
        """Generate the experts of every edit in the batch, differentiably."""
        seen = self.norm(batch.predicting)
        tokens = standardise(batch.embeddings)
        look = self.look(seen) + self.look_mlp(seen)
        look = look + self.look_around(seen, batch.signal, batch.signal_mask)
        look = look / self.hidden**0.5
        up = self.write(tokens) + self.write_mlp(torch.cat([tokens, seen], dim=-1))
        up = self.log_scale.exp() * up
        # norm(h) . look  =  standardise(h) . (weight * look) + bias . look
        down = look * self.norm.weight
        bias = look @ self.norm.bias - self.null
        gamma = self.log_gamma.exp()
        return [
            SlotExpert(down=down[i, :n], up=up[i, :n], bias=bias[i, :n], gamma=gamma)
            for i, n in enumerate(batch.counts)
        ]


class FreeGenerator(nn.Module):
    """The paper's generator: `U = c CA_U(Q_U; LN_U(s))`, `V = c CA_V(Q_V; LN_V(s))`, rank 4.

    `s` is image, prompt and answer rows; `Q` are learned `[rank, width]`; `c = 1 / (5 sqrt(rank))`.
    `V` is learned in units of the states' size, which the paper leaves to the optimiser.
    `LN_x`, the norm that reads a query's rows, is shared by all experts and folded into them.
    """

    def __init__(self, hidden: int, *, rank: int = 4, width: int = 192, heads: int = 8) -> None:
        super().__init__()
        self.scale = 1.0 / (5.0 * rank**0.5)
        self.norm = nn.LayerNorm(hidden)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.down_queries = nn.Parameter(torch.randn(rank, width))
        self.up_queries = nn.Parameter(torch.randn(rank, width))
        self.down_attention = CrossAttention(
            width, hidden, width=width, out_width=hidden, heads=heads
        )
        self.up_attention = CrossAttention(
            width, hidden, width=width, out_width=hidden, heads=heads
        )

    def start_from(self, states: Tensor) -> None:
        """Begin with experts in proportion to the states `[rows, hidden]` they are added to."""
        _set_scale(self.log_scale, states)

    def forward(self, batch: EditBatch) -> list[FreeExpert]:
        """Generate the experts of every edit in the batch, differentiably."""
        count = len(batch.counts)
        down = self.scale * self.down_attention(
            self.down_queries.expand(count, -1, -1), batch.signal, batch.signal_mask
        )
        up = (
            self.scale
            * self.log_scale.exp()
            * self.up_attention(
                self.up_queries.expand(count, -1, -1), batch.signal, batch.signal_mask
            )
        )
        bias = down @ self.norm.bias
        down = down * self.norm.weight
        return [FreeExpert(down=down[i], up=up[i], bias=bias[i]) for i in range(count)]
