"""Visual experts: what an edit's own row was, kept to be looked at by the picture of a later query.

The visual edit adapter (VisEdit, section "VEAD") rewrites the picture's rows at one layer: each of
them attends to the rows of the edit and adds what it finds, as far as the influence mapper lets it.
With `H` the picture's rows of a query, `S_e` the kept rows of edit `e` and `s*_e` the row of its
last prompt token, all base states at the edit layer, and `w_e` the router's weight:

    x   = A LN(H)
    y   = MHA( query W_q x, key W_k S, value W_v S )     over the rows of every edit, + log w_e
    g_e = sigmoid( IM(H, s*_e) )                         one gate for each row of the picture
    H'  = H + (sum_e w_e g_e) B y

Four things are not in the paper, which holds one edit and answers of a word or two. Rows of the
answer carry the token that they predict, as aligned slots do, for a state at this layer does not
know what comes next. Head by head a learned bias draws row j of the picture to answer row j mod n,
so that an answer of n tokens is spread over the picture instead of every row holding all of it.
Several edits share one attention, as aligned slots share one softmax. And an edit whose answer the
adapter cannot bring about is kept as a picture `C_e` of low rank, fitted at edit time, which is
shown in place of the query's own:

    H'  = H + w_e (C_e - H)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from editing_core.experts.rounding import rounded_payload
from editing_core.experts.slots import standardise
from editing_core.states import EditStates
from editing_core.types import Positions

KIND = "visual"
_KIND, _SLOTS = "kind", "slots"
_FIRST_BIAS = 4.0


@dataclass(frozen=True)
class ShownPicture:
    """The rows that stand in for the picture's: `place` `[patches, rank]` times `write`
    `[rank, hidden]`, float32."""

    place: Tensor
    write: Tensor

    @classmethod
    def of(cls, rows: Tensor, *, rank: int) -> ShownPicture:
        """The one of that rank nearest to `rows` `[patches, hidden]`, shared out evenly."""
        left, sizes, right = torch.linalg.svd(rows.float().cpu(), full_matrices=False)
        roots = sizes[:rank].sqrt()
        return cls(left[:, :rank] * roots, roots[:, None] * right[:rank])

    def payload(self) -> dict[str, Tensor]:
        """The tensors to store, see `rounding`."""
        return rounded_payload({"place": self.place, "write": self.write})

    def rows(self, patches: int) -> Tensor:
        """`[patches, hidden]`; a picture of more or fewer patches has them in proportion."""
        place = self.place
        if len(place) != patches:
            nearest = torch.arange(patches, device=place.device) * len(place) // patches
            place = place[nearest]
        return place @ self.write


@dataclass(frozen=True)
class VisualExpert:
    """What an edit is looked at by: `source` `[rows, hidden]`, of which the last `slots` are the
    answer's, and `anchor` `[hidden]`, which the influence mapper reads."""

    source: Tensor
    anchor: Tensor
    slots: int

    def payload(self) -> dict[str, Tensor]:
        """The tensors to store, see `rounding`."""
        return rounded_payload({"source": self.source, "anchor": self.anchor})

    def metadata(self) -> dict[str, str]:
        """What the tensors alone do not say."""
        return {_KIND: KIND, _SLOTS: str(self.slots)}


def read_expert(
    payload: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    device: torch.device | str = "cpu",
) -> VisualExpert | ShownPicture:
    """Read a stored expert. Raises `ValueError` on a payload of another kind."""
    read = {name: tensor.to(device, torch.float32) for name, tensor in payload.items()}
    if metadata.get(_KIND) == KIND and set(read) == {"place", "write"}:
        shown = ShownPicture(**read)
        if shown.place.shape[-1:] != shown.write.shape[:1]:
            raise ValueError("a visual expert's place and write do not fit together")
        return shown
    slots = metadata.get(_SLOTS, "")
    if metadata.get(_KIND) != KIND or set(read) != {"source", "anchor"}:
        raise ValueError(f"not a visual expert: {sorted(payload)}, {metadata.get(_KIND)!r}")
    source, anchor = read["source"], read["anchor"]
    if not slots.isdecimal() or not 0 < int(slots) <= len(source):
        raise ValueError(f"a visual expert of {len(source)} rows has {slots!r} slots")
    if anchor.shape != source.shape[1:]:
        raise ValueError(f"anchor {list(anchor.shape)} beside rows {list(source.shape)}")
    return VisualExpert(source, anchor, int(slots))


class InfluenceMapper(nn.Module):
    """`IM(H, s*)`: how much each row of a picture matters to what an edit asks.

    Residual two-layer maps of both after their norms, then the mean over heads of the heads' inner
    products, scaled as attention is.
    """

    def __init__(self, hidden: int, *, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.image_norm = nn.LayerNorm(hidden)
        self.anchor_norm = nn.LayerNorm(hidden)
        self.image_map = _residual_map(hidden)
        self.anchor_map = _residual_map(hidden)

    def forward(self, image: Tensor, anchors: Tensor) -> Tensor:
        """Scores `[rows, patches, edits]` of `image` `[rows, patches, hidden]` for `anchors`
        `[edits, hidden]`; their sigmoid is the gate."""
        image = self.image_norm(image)
        image = image + self.image_map(image)
        anchors = self.anchor_norm(anchors)
        anchors = anchors + self.anchor_map(anchors)
        size = (anchors.shape[-1] / self.heads) ** 0.5
        scores: Tensor = image @ anchors.T / (self.heads * size)
        return scores


class VisualEditAdapter(nn.Module):
    """Makes visual experts of edits, and what they add to the picture of a query."""

    def __init__(self, hidden: int, *, width: int = 256, heads: int = 8) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"the width {width} must be a multiple of {heads} heads")
        self.heads = heads
        self.mapper = InfluenceMapper(hidden, heads=heads)
        self.source_norm = nn.LayerNorm(hidden)
        self.token_in = nn.Linear(hidden, hidden, bias=False)
        self.answer_map = nn.Sequential(
            nn.Linear(2 * hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden)
        )
        self.image_norm = nn.LayerNorm(hidden)
        self.image_in = nn.Linear(hidden, width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(hidden, width)
        self.value = nn.Linear(hidden, width)
        self.out = nn.Linear(width, hidden)
        self.turn_bias = nn.Parameter(torch.full((heads,), _FIRST_BIAS))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def start_from(self, states: Tensor) -> None:
        """Begin with changes in proportion to the states `[rows, hidden]` they are added to."""
        with torch.no_grad():
            self.log_scale.copy_((0.3 * states.float().pow(2).mean().sqrt()).log())

    def expert(self, states: EditStates, *, patches: int | None = None) -> VisualExpert:
        """The expert of one edit, differentiably, in float32.

        Of the edit's own picture the `patches` rows that the mapper holds to matter most are kept,
        all of them by default.
        """
        seen, tokens = self.source_norm(states.predicting), standardise(states.target_embeddings)
        answer: Tensor = self.answer_map(torch.cat([tokens, seen], dim=-1))
        answer = answer + seen + self.token_in(tokens)
        anchor = states.predicting[0]
        image = states.image
        if patches is not None and patches < len(image):
            with torch.no_grad():
                influence = self.mapper(image[None], anchor[None])[0, :, 0]
            image = image[influence.topk(patches).indices.sort().values]
        before = self.source_norm(torch.cat([image, states.words]))
        return VisualExpert(torch.cat([before, answer]), anchor, len(answer))

    def forward(self, image: Tensor, experts: Sequence[VisualExpert], weights: Tensor) -> Tensor:
        """What is added to pictures.

        Args:
            image: base states float32 `[rows, patches, hidden]`.
            experts: of the edits, shared by all rows.
            weights: float32 `[rows, edits]`, 0 where an edit is not selected.

        Returns:
            float32 `[rows, patches, hidden]`, exactly 0 in rows that select nothing.
        """
        patches = image.shape[1]
        source = torch.cat([e.source for e in experts])
        owner = torch.cat(
            [torch.full((len(e.source),), i, device=image.device) for i, e in enumerate(experts)]
        )
        acts = weights.sum(-1) > 0
        # Rows without any edit would attend to nothing at all; their result is not used.
        log_weights = torch.where(acts[:, None], weights, 1.0).log()[:, owner]
        turns = torch.cat([_turns(e, patches, device=image.device) for e in experts], dim=1)
        bias = log_weights[:, None, None, :] + self.turn_bias[:, None, None] * turns
        q = self._heads(self.query(self.image_in(self.image_norm(image))))
        k, v = self._heads(self.key(source)), self._heads(self.value(source))
        rows = len(image)
        mixed = scaled_dot_product_attention(
            q, k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1), attn_mask=bias
        )
        found = self.out(mixed.transpose(1, 2).flatten(2))
        anchors = torch.stack([expert.anchor for expert in experts])
        gates = (self.mapper(image, anchors).sigmoid() * weights[:, None, :]).sum(-1, keepdim=True)
        added: Tensor = self.log_scale.exp() * gates * found
        return added

    def _heads(self, tensor: Tensor) -> Tensor:
        return tensor.reshape(*tensor.shape[:-1], self.heads, -1).transpose(-3, -2)


def _turns(expert: VisualExpert, patches: int, *, device: torch.device) -> Tensor:
    """1 where row j of a picture is drawn to a row of the expert: `[patches, rows]`."""
    turns = torch.zeros(patches, len(expert.source), device=device)
    rows = torch.arange(patches, device=device)
    turns[rows, len(expert.source) - expert.slots + rows % expert.slots] = 1.0
    return turns


def _residual_map(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, hidden))


class VisualIntervention:
    """One row's fused visual experts: the picture's rows, once, at prefill."""

    positions: Positions = "vision"

    def __init__(
        self,
        adapter: VisualEditAdapter,
        experts: Sequence[tuple[VisualExpert | ShownPicture, float]],
    ) -> None:
        self._adapter = adapter
        looked_at = [(e, weight) for e, weight in experts if isinstance(e, VisualExpert)]
        self._looked_at = [expert for expert, _ in looked_at]
        self._weights = torch.tensor([[weight for _, weight in looked_at]])
        self._shown = [(e, weight) for e, weight in experts if isinstance(e, ShownPicture)]

    def residual(self, states: Tensor, steps: Tensor) -> Tensor:
        """What to add to the picture's rows `[patches, hidden]`; see `Intervention.residual`."""
        del steps
        added = torch.zeros_like(states)
        if self._looked_at:
            weights = self._weights.to(states.device)
            added = added + self._adapter(states[None], self._looked_at, weights)[0]
        for picture, weight in self._shown:
            added = added + weight * (picture.rows(len(states)) - states)
        return added
