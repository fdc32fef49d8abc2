"""The router: which active edits a query fires, and how strongly. It knows no editor.

    image key  -> exact range search, cosine >= tau          hard filter
    visual key -> more like the query than the sentinel      strictly
    text key   -> gate sigmoid(s_p) >= rho
    survivors  -> one softmax, whichever editor made them

Everything is read from base states at one layer, at or below every editor's edit layer, the words
without the picture (`RoutingStates`). A router
is loaded once and never mutated; `keys` and `route` may be called from any one thread at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from editing_core.errors import CheckpointCorrupt, FingerprintMismatch
from editing_core.experts.weights import (
    load_weights,
    read_description,
    save_part,
    weights_fingerprint,
)
from editing_core.routing.features import FeatureExtractor, Sentinel
from editing_core.routing.scores import ScoreScales, WeightRule, survivor_weights
from editing_core.states import RoutingStates
from editing_core.types import Candidate, EditArtifact, Outcome, RoutingDecision, RoutingKey

KIND = "router"


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
class Thresholds:
    """What calibration decides. No part of the fingerprint: recalibrating makes no edit stale."""

    tau: float = 0.85
    rho: float = 0.5
    alpha: float = 0.0
    beta: float = 1.0
    margin: float = 0.0
    rule: WeightRule = "joint"


class Entry(Protocol):
    """An active edit, as a snapshot holds it."""

    @property
    def artifact(self) -> EditArtifact: ...


class Memory(Protocol):
    """What a router reads of a snapshot."""

    @property
    def entries(self) -> Mapping[str, Any]:
        """Active edits by id, each an `Entry`."""
        ...

    def image_candidates(
        self, image_key: NDArray[np.float32], tau: float
    ) -> list[tuple[str, float]]:
        """Every active edit whose image key has cosine >= `tau`, by exact range search."""
        ...


@dataclass(frozen=True, slots=True)
class QueryFeatures:
    """A query's side of the scores: `text` a flattened key, `visual [slots, width]`,
    `sentinel [slots]` its cosines with the sentinel's."""

    text: Tensor
    visual: Tensor
    sentinel: Tensor


class Router(nn.Module):
    """Extractors for both sides, sentinel, scales and thresholds: one checkpoint per backbone."""

    def __init__(
        self,
        config: RouterConfig,
        *,
        thresholds: Thresholds = Thresholds(),
        figures: Mapping[str, float] | None = None,
        backbone_fingerprint: str = "",
    ) -> None:
        super().__init__()
        self.config = config
        self.thresholds = thresholds
        self.figures: dict[str, float] = dict(figures or {})
        self.backbone_fingerprint = backbone_fingerprint
        sizes = asdict(config)
        shape = {n: sizes[n] for n in ("width", "text_slots", "visual_slots", "heads")}
        self.edit_side = FeatureExtractor(config.hidden, **shape)
        self.query_side = FeatureExtractor(config.hidden, **shape)
        # Both sides start equal, so that equal words match before anything is learned.
        self.query_side.load_state_dict(self.edit_side.state_dict())
        self.sentinel = Sentinel(config.num_patches, config.hidden)
        self.scales = ScoreScales()
        self._fingerprint: str | None = None

    @property
    def layer(self) -> int:
        """The decoder block whose output it reads."""
        return self.config.layer

    @property
    def tau(self) -> float:
        """Cosine of image keys below which an edit is out of the question."""
        return self.thresholds.tau

    @property
    def rho(self) -> float:
        """Text gate below which a survivor is dropped."""
        return self.thresholds.rho

    @property
    def image_key_model(self) -> str:
        """What makes the image keys that `tau` was calibrated for."""
        return self.config.image_key_model

    @property
    def false_fire_rate(self) -> float | None:
        """Share of unrelated queries that fired anything when it was calibrated, if known."""
        return self.figures.get("false_fire_rate")

    @property
    def fingerprint(self) -> str:
        """Identity of the key-making weights and configuration, without the thresholds."""
        if self._fingerprint is None:
            self._fingerprint = weights_fingerprint(self, asdict(self.config))
        return self._fingerprint

    @torch.no_grad()
    def keys(self, states: RoutingStates, image_key: NDArray[np.float32]) -> RoutingKey:
        """What an edit is filed under."""
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

    def hard_filter(
        self, image_key: NDArray[np.float32], snapshot: Memory
    ) -> list[tuple[str, float]]:
        """Every active edit whose image is near enough, with its cosine. Never top-k."""
        return snapshot.image_candidates(image_key, self.tau)

    @torch.no_grad()
    def query_features(self, query: RoutingStates) -> QueryFeatures:
        """The query's textual and visual key and how much it looks like the sentinel."""
        side = self.query_side
        words = query.words[None]
        guided = side.visual.guided(words)
        pictures = torch.stack([query.image, self.sentinel.states])
        seen = side.visual.look_at(guided.expand(2, -1, -1), side.visual.read_patches(pictures))
        return QueryFeatures(
            text=side.text(words)[0].flatten(),
            visual=seen[0],
            sentinel=(seen[0] * seen[1]).sum(-1),
        )

    @torch.no_grad()
    def route(
        self, query: RoutingStates, survivors: Sequence[tuple[str, float]], snapshot: Memory
    ) -> RoutingDecision:
        """Decide for one row, from its prompt rows only; highest weight first.

        `survivors` are what `hard_filter` let through. A row without an image fires nothing.
        """
        if not survivors or not len(query.image):
            return RoutingDecision()
        limits = self.thresholds
        features = self.query_features(query)
        artifacts = [snapshot.entries[edit_id].artifact for edit_id, _ in survivors]
        device = features.text.device
        text_keys = torch.from_numpy(np.stack([a.key.text.ravel() for a in artifacts])).to(device)
        visual_keys = torch.from_numpy(np.stack([a.key.visual for a in artifacts])).to(device)
        image = torch.tensor([cosine for _, cosine in survivors], device=device)
        text = self.scales.text(text_keys @ features.text)
        visual = (
            self.scales.visual((visual_keys * features.visual).sum(-1), features.sentinel, image)
            - limits.margin
        )
        gate = text.sigmoid()
        looks_right = visual > 0
        asks_this = (gate >= limits.rho) | (limits.rule == "paper")
        kept = looks_right & asks_this
        weights = torch.zeros_like(gate)
        if bool(kept.any()):
            weights[kept] = survivor_weights(
                text[kept],
                visual[kept],
                image[kept],
                rule=limits.rule,
                alpha=limits.alpha,
                beta=limits.beta,
                tau=limits.tau,
            )
        candidates = [
            Candidate(
                edit_id=edit_id,
                image_similarity=cosine,
                text_similarity=float(gate[i]),
                weight=float(weights[i]),
                outcome=_outcome(bool(looks_right[i]), asks_this=bool(asks_this[i])),
            )
            for i, (edit_id, cosine) in enumerate(survivors)
        ]
        candidates.sort(key=lambda c: (-c.weight, -c.text_similarity, c.edit_id))
        return RoutingDecision(candidates=tuple(candidates))

    def with_thresholds(self, **changes: Any) -> Router:
        """The same weights under other thresholds; shares the modules with this one."""
        return self.with_figures(self.figures, **changes)

    def with_figures(self, figures: Mapping[str, float], **changes: Any) -> Router:
        """As `with_thresholds`, with what was measured under the new ones."""
        twin = Router(
            self.config,
            thresholds=replace(self.thresholds, **changes),
            figures=figures,
            backbone_fingerprint=self.backbone_fingerprint,
        )
        twin.edit_side, twin.query_side = self.edit_side, self.query_side
        twin.sentinel, twin.scales = self.sentinel, self.scales
        return twin.eval()

    def save(self, weights: Path, description: Path) -> None:
        """Write the checkpoint: safetensors (float16) and JSON."""
        save_part(
            weights,
            description,
            self,
            {
                "kind": KIND,
                "config": asdict(self.config),
                "thresholds": asdict(self.thresholds),
                "figures": self.figures,
                "fingerprint": self.fingerprint,
                "backbone_fingerprint": self.backbone_fingerprint,
            },
        )

    @classmethod
    def load(cls, weights: Path, description: Path) -> Router:
        """Read what `save` wrote.

        Raises:
            CheckpointMissing: a file is not there.
            CheckpointCorrupt: a file is damaged or does not fit the other.
            FingerprintMismatch: the weights are not those that the description names.
        """
        document = read_description(description, kind=KIND)
        try:
            router = cls(
                RouterConfig(**document["config"]),
                thresholds=Thresholds(**document["thresholds"]),
                figures=document.get("figures", {}),
                backbone_fingerprint=document.get("backbone_fingerprint", ""),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointCorrupt(f"{description} has a bad setting: {error}") from error
        load_weights(weights, router)
        if document.get("fingerprint") != router.fingerprint:
            raise FingerprintMismatch(f"{weights} is not what {description} describes")
        return router.requires_grad_(False).eval()


def _outcome(looks_right: bool, *, asks_this: bool) -> Outcome:
    if not looks_right:
        return "below_sentinel"
    return "applied" if asks_this else "below_text_gate"
