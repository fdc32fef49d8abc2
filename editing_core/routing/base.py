"""The contract of a router: which active edits a query fires, and how strongly. It knows no editor.

    image key  -> exact range search, cosine >= tau          hard filter
    sketch     -> one picture, side by side                  where the eyes made sketches
    visual key -> more like the query than a fake image      where the router has visual keys
    text key   -> gate sigmoid(s_p) >= rho             or the question encoder's, see `wordings`
    survivors  -> one softmax, whichever editor made them, and one target that answers

Everything is read from base states at one layer, at or below every editor's edit layer, the words
without the picture (`RoutingStates`). A router says how keys are made (`keys`) and how they score
(`scores`); what follows from the scores is the same for all (`decision`). One is loaded once and
never mutated; `keys` and `route` may be called from any one thread at a time.

What makes keys is its fingerprint. Thresholds are no part of it: recalibrating makes no edit stale.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from editing_core.errors import CheckpointCorrupt
from editing_core.experts.stored import StoredPart
from editing_core.experts.weights import read_description
from editing_core.registry import ROUTERS
from editing_core.routing.decision import Scores, Thresholds, decide
from editing_core.routing.wordings import TextMatch
from editing_core.states import RoutingStates
from editing_core.types import EditArtifact, RoutingDecision, RoutingKey


class RouterSettings(Protocol):
    """What every router's frozen configuration says; the whole of it is in the fingerprint."""

    @property
    def layer(self) -> int: ...

    @property
    def image_key_model(self) -> str: ...


class Entry(Protocol):
    """An active edit, as a snapshot holds it."""

    @property
    def artifact(self) -> EditArtifact: ...

    @property
    def target(self) -> str: ...


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


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One row to be routed, from its prompt rows only.

    `survivors` are what `hard_filter` let through of `snapshot`. With `match`, of them in their
    order, texts are compared by the question encoder; the router's own textual keys decide without.
    `another`, bool `[survivors]`: those whose picture is another one, by their sketches.
    """

    states: RoutingStates
    survivors: Sequence[tuple[str, float]]
    snapshot: Memory
    match: TextMatch | None = None
    another: Tensor | None = None

    @property
    def keys(self) -> list[RoutingKey]:
        """Of the survivors."""
        return [self.snapshot.entries[edit_id].artifact.key for edit_id, _ in self.survivors]

    @property
    def cosines(self) -> Tensor:
        """Of the survivors' image keys with the query's, float32 `[survivors]`."""
        cosines = [cosine for _, cosine in self.survivors]
        return torch.tensor(cosines, device=self.states.words.device)


class RouterBase(nn.Module, StoredPart):
    """One router. Subclasses name their types and say `build`, `keys` and `scores`."""

    thresholds_type: ClassVar[type[Thresholds]] = Thresholds
    config: RouterSettings

    def __init__(
        self,
        config: Any,
        *,
        thresholds: Thresholds | None = None,
        figures: Mapping[str, float] | None = None,
        backbone_fingerprint: str = "",
    ) -> None:
        nn.Module.__init__(self)
        StoredPart.__init__(self, config, backbone_fingerprint=backbone_fingerprint)
        self.thresholds = self.thresholds_type() if thresholds is None else thresholds
        self.figures: dict[str, float] = dict(figures or {})
        self.build()

    @abstractmethod
    def build(self) -> None:
        """Make the modules and buffers that `config` asks for, as they are before training."""

    @abstractmethod
    def keys(
        self,
        states: RoutingStates,
        image_key: NDArray[np.float32],
        *,
        rephrases: Sequence[Tensor] = (),
    ) -> RoutingKey:
        """What an edit is filed under.

        `rephrases` are further wordings of its prompt, `[words, hidden]` each, read as
        `states.words` are; a router that has learned to generalise may leave them out.
        """

    @abstractmethod
    def scores(
        self, query: RoutingStates, keys: Sequence[RoutingKey], image_cosines: Tensor
    ) -> Scores:
        """How well each survivor's key fits the query; `image_cosines` float32 `[survivors]`."""

    def scores_each(self, queries: Sequence[Query]) -> list[Scores]:
        """`scores` of many queries, whose textual ones nobody reads where there is a match."""
        return [self.scores(each.states, each.keys, each.cosines) for each in queries]

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
    def stored(self) -> nn.Module:
        """All of it: thresholds are no weights."""
        return self

    def hard_filter(
        self, image_key: NDArray[np.float32], snapshot: Memory
    ) -> list[tuple[str, float]]:
        """Every active edit whose image is near enough, with its cosine. Never top-k."""
        return snapshot.image_candidates(image_key, self.tau)

    def route(
        self,
        query: RoutingStates,
        survivors: Sequence[tuple[str, float]],
        snapshot: Memory,
        *,
        match: TextMatch | None = None,
        another: Tensor | None = None,
    ) -> RoutingDecision:
        """`route_each` of one row."""
        (decision,) = self.route_each([Query(query, survivors, snapshot, match, another)])
        return decision

    @torch.no_grad()
    def route_each(self, queries: Sequence[Query]) -> list[RoutingDecision]:
        """Decide for each row; highest weight first. One without an image fires nothing."""
        seeing = [each for each in queries if each.survivors and len(each.states.image)]
        scores = dict(zip(map(id, seeing), self.scores_each(seeing), strict=True))
        return [
            self._decision(each, scores[id(each)]) if id(each) in scores else RoutingDecision()
            for each in queries
        ]

    def _decision(self, query: Query, scores: Scores) -> RoutingDecision:
        survivors, entries = query.survivors, query.snapshot.entries
        targets = [entries[edit_id].target for edit_id, _ in survivors]
        if query.match is None:
            scores = replace(scores, another=query.another)
            return decide(survivors, scores, self.thresholds, targets=targets)
        return self._decide(survivors, scores.visual, query.match, targets, query.another)

    def refuse(
        self,
        survivors: Sequence[tuple[str, float]],
        match: TextMatch,
        *,
        another: Tensor | None = None,
    ) -> RoutingDecision | None:
        """The decision where no survivor passes by its text and its picture: nothing acts.

        None where one may.
        """
        may = match.passes | (self.thresholds.rule == "paper")
        if bool((may if another is None else may & ~another).any()):
            return None
        return self._decide(survivors, None, match, (), another)

    def _decide(
        self,
        survivors: Sequence[tuple[str, float]],
        visual: Tensor | None,
        match: TextMatch,
        targets: Sequence[str],
        another: Tensor | None,
    ) -> RoutingDecision:
        device = match.scores.device if visual is None else visual.device
        scores = Scores(
            text=match.scores.to(device),
            visual=visual,
            another=another,
            excluded=match.excluded.to(device),
            matched=match.matched,
        )
        limits = replace(self.thresholds, rho=match.rho)
        return decide(survivors, scores, limits, targets=targets, lead=match.lead)

    def with_thresholds(self, **changes: Any) -> Self:
        """The same weights under other thresholds; shares the modules with this one."""
        return self.with_figures(self.figures, **changes)

    def with_figures(self, figures: Mapping[str, float], **changes: Any) -> Self:
        """As `with_thresholds`, with what was measured under the new ones."""
        twin = type(self)(
            self.config,
            thresholds=replace(self.thresholds, **changes),
            figures=figures,
            backbone_fingerprint=self.backbone_fingerprint,
        )
        for name, module in self.named_children():
            setattr(twin, name, module)
        for name, buffer in self.named_buffers(recurse=False):
            setattr(twin, name, buffer)
        return twin.eval()

    def save(self, weights: Path, description: Path) -> None:
        """Write the checkpoint; see `StoredPart.write`."""
        more = {"thresholds": asdict(self.thresholds), "figures": self.figures}
        self.write(weights, description, more)

    @classmethod
    def described(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        """Thresholds, and what was measured under them."""
        return {
            "thresholds": cls.thresholds_type(**document["thresholds"]),
            "figures": document.get("figures", {}),
        }


def load_router(weights: Path, description: Path) -> RouterBase:
    """The router that the files hold, of whatever registered kind its description names.

    Raises what `RouterBase.load` raises.
    """
    kind = read_description(description)["kind"]
    if kind not in ROUTERS:
        raise CheckpointCorrupt(f"{description} does not describe a router but a {kind}")
    router: RouterBase = ROUTERS.resolve(kind).load(weights, description)
    return router
