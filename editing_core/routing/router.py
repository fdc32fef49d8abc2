"""The trained router: learned extractors for edits and queries, and a vision sentinel.

    visual key -> more like the query than the sentinel      strictly
    text key   -> a cosine of learned keys, scaled and shifted

What follows from the scores is every router's (`base`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from editing_core.routing.base import Memory, Query, RouterBase
from editing_core.routing.decision import Scores, Thresholds
from editing_core.routing.features import FeatureExtractor, Sentinel
from editing_core.routing.scores import ScoreScales
from editing_core.states import RoutingStates
from editing_core.types import RoutingKey

__all__ = ["Memory", "QueryFeatures", "Router", "RouterConfig", "Thresholds"]


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """The shape of a router and where it reads. Part of its fingerprint."""

    hidden: int
    layer: int
    num_patches: int
    width: int = 128
    text_slots: int = 4
    visual_slots: int = 8
    heads: int = 8
    image_key_model: str = "clip"


@dataclass(frozen=True, slots=True)
class QueryFeatures:
    """A query's side of the scores: `text` a flattened key, empty where words were not read,
    `visual [slots, width]`, `sentinel [slots]` its cosines with the sentinel's."""

    text: Tensor
    visual: Tensor
    sentinel: Tensor


class Router(RouterBase):
    """Extractors for both sides, sentinel, scales and thresholds: one checkpoint per backbone."""

    kind: ClassVar[str] = "router"
    config_type = RouterConfig
    config: RouterConfig

    def build(self) -> None:
        """See `RouterBase.build`."""
        config = self.config
        sizes = asdict(config)
        shape = {n: sizes[n] for n in ("width", "text_slots", "visual_slots", "heads")}
        self.edit_side = FeatureExtractor(config.hidden, **shape)
        self.query_side = FeatureExtractor(config.hidden, **shape)
        # Both sides start equal, so that equal words match before anything is learned.
        self.query_side.load_state_dict(self.edit_side.state_dict())
        self.sentinel = Sentinel(config.num_patches, config.hidden)
        self.scales = ScoreScales()
        self._fake_read: tuple[Sequence[Tensor], object, tuple[Tensor, Tensor]] | None = None
        """With which weights, in which state of theirs, and what was read of the sentinel."""

    @torch.no_grad()
    def keys(
        self,
        states: RoutingStates,
        image_key: NDArray[np.float32],
        *,
        rephrases: Sequence[Tensor] = (),
    ) -> RoutingKey:
        """What an edit is filed under; rephrases are not needed, other wordings were learned."""
        del rephrases
        side = self.edit_side
        words = states.words[None]
        text = side.text(words)[0]
        patches = side.visual.read_patches(states.image[None])
        visual = side.visual.look_at(side.visual.guided(words), patches)[0]
        return RoutingKey(
            image=np.ascontiguousarray(image_key, dtype=np.float32),
            text=text.cpu().numpy(),
            visual=visual.cpu().numpy(),
        )

    def query_features(self, query: RoutingStates) -> QueryFeatures:
        """The query's textual and visual key and how much it looks like the sentinel."""
        (features,) = self._features([query], reads_words=True)
        return features

    @torch.no_grad()
    def _features(
        self, queries: Sequence[RoutingStates], *, reads_words: bool
    ) -> list[QueryFeatures]:
        """Of many queries at once; the sentinel is looked at with each one's own words."""
        side, count = self.query_side, len(queries)
        words, said = _padded([query.words for query in queries])
        patches, shown = _padded([query.image for query in queries])
        guided = side.visual.guided(words, said)
        seen = side.visual.look_at(guided, side.visual.read_patches(patches), shown)
        fake = (part.expand(count, -1, -1, -1) for part in self._fake())
        sentinel = (seen * side.visual.finish(side.visual.look.attend(guided, *fake))).sum(-1)
        texts = side.text(words, said).flatten(1) if reads_words else words.new_zeros(count, 0)
        return [QueryFeatures(*parts) for parts in zip(texts, seen, sentinel, strict=True)]

    def _fake(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the sentinel's patches, the same for every query."""
        if self._fake_read is None or _state_of(self._fake_read[0]) != self._fake_read[1]:
            visual = self.query_side.visual
            read_with = (*self.sentinel.parameters(), *visual.parameters())
            read = visual.look.read(visual.read_patches(self.sentinel.states[None]))
            self._fake_read = (read_with, _state_of(read_with), read)
        return self._fake_read[2]

    def scores(
        self, query: RoutingStates, keys: Sequence[RoutingKey], image_cosines: Tensor
    ) -> Scores:
        """`s_p` and `s_v` of `routing/scores.py`."""
        return self._scores(self.query_features(query), keys, image_cosines)

    def scores_each(self, queries: Sequence[Query]) -> list[Scores]:
        """See `RouterBase.scores_each`; what is read of the queries is read of all at once."""
        if not queries:
            return []
        reads_words = any(query.match is None for query in queries)
        features = self._features([query.states for query in queries], reads_words=reads_words)
        return [
            self._scores(each, query.keys, query.cosines)
            for each, query in zip(features, queries, strict=True)
        ]

    @torch.no_grad()
    def _scores(
        self, features: QueryFeatures, keys: Sequence[RoutingKey], image_cosines: Tensor
    ) -> Scores:
        device = features.visual.device
        text = torch.zeros(len(keys), device=device)
        if len(features.text):
            text_keys = torch.from_numpy(np.stack([key.text.ravel() for key in keys])).to(device)
            text = self.scales.text(text_keys @ features.text)
        visual_keys = torch.from_numpy(np.stack([key.visual for key in keys])).to(device)
        cosines = (visual_keys * features.visual).sum(-1)
        return Scores(
            text=text, visual=self.scales.visual(cosines, features.sentinel, image_cosines)
        )


def _state_of(weights: Sequence[Tensor]) -> object:
    """Another one after every change of theirs."""
    return [(weight.data_ptr(), weight._version) for weight in weights]


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """`[queries, most, hidden]`, and which of it exists; None where all of it does."""
    lengths = torch.tensor([len(each) for each in rows])
    most = int(lengths.max())
    exists = torch.arange(most) < lengths[:, None]
    whole = pad_sequence(list(rows), batch_first=True)
    return whole, None if bool(exists.all()) else exists.to(whole.device)
