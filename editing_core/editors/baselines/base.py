"""The contract of a baseline: another way to correct a model, to stand beside an editor in a table.

    baseline.edit(request)                        one after another; `reset` forgets them all
    with baseline.in_force():
        batch, acting = baseline.begin(rows)      rows laid out as this baseline asks them
        generation.run(backbone, batch, samplings, acting)

What it learns lives in the object: changed weights, a codebook, a memory. Nothing is stored,
nothing is taken back one by one; that is the editors' side of the comparison.

What holds for all of them, and is proved by `tests/contracts/test_baseline.py`:

- The base model's parameters are never written. Changed weights act through hooks that end with
  `in_force`, changed states through taps that end with one batch. Outside, every bit is the base
  model's.
- `edit` takes effect whole, or raises and changes nothing: `TargetNotEncodable`, `ContextTooLong`.
- The same seed and the same edits in the same order give the same answers.
- An edit of the same picture and the same prompt is known again where a method keeps its edits
  apart: the later one replaces the earlier.

Settings are a frozen dataclass. Their defaults are what `benchmarks/tune_baselines.py` chose on
the embedded model with emblems of the `validation` split, which no benchmark case is drawn from;
`grid` is what it tries. Another backbone wants its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import ImageFeatures, PreparedBatch, PromptRow
from editing_core.backbones.passes import Tap
from editing_core.routing.base import RouterBase
from editing_core.types import EditRequest, ImageArray, RoutingDecision


class Acting:
    """What a baseline does to one running batch; what `generation.run` asks for.

    `survivors[b]` counts the edits found by row b's picture, `fired[b]` those that take part in its
    answer; None where a baseline has no such thing. Complete once prefill ran.
    """

    def __init__(self, rows: int, *, counts: bool = False) -> None:
        self.decisions = [RoutingDecision()] * rows
        self.fired: list[int | None] = [0 if counts else None] * rows
        self.survivors: list[int | None] = [0 if counts else None] * rows
        self.taps: dict[int, Tap] = {}

    def prefill_taps(self) -> Mapping[int, Tap] | None:
        """By layer; None when nothing acts."""
        return self.taps or None

    def decode_taps(self, step: int) -> Mapping[int, Tap] | None:
        """None: what a baseline changed at prefill reaches later tokens through the cache."""
        del step
        return None


class Baseline(ABC):
    """See the module's docstring. Calls belong on one thread."""

    name: ClassVar[str]
    settings_type: ClassVar[type[Any]]
    grid: ClassVar[Mapping[str, Sequence[Any]]]

    def __init__(
        self, backbone: Backbone, router: RouterBase, settings: Any, *, seed: int = 0
    ) -> None:
        self.backbone = backbone
        self.router = router
        self.settings = settings
        self.seed = seed

    @abstractmethod
    def reset(self) -> None:
        """Forget every edit."""

    @abstractmethod
    def edit(self, request: EditRequest) -> None:
        """Learn one edit beside the earlier ones."""

    def prompt_for(self, prompt: str, image: ImageArray | None) -> str:
        """What is really asked where `prompt` is asked about `image`."""
        del image
        return prompt

    def picture_for(self, image: ImageArray) -> ImageArray | ImageFeatures:
        """What is really shown where `image` is."""
        return image

    def begin(self, rows: Sequence[PromptRow]) -> tuple[PreparedBatch, Acting]:
        """Lay out `rows`, whose pictures are arrays, with what acts on them. Inside `in_force`.

        Raises `ContextTooLong`.
        """
        return self.backbone.prepare([self._asked(row) for row in rows]), Acting(len(rows))

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """While it lasts, the backbone's weights act as edited."""
        yield

    def _asked(self, row: PromptRow) -> PromptRow:
        if isinstance(row.image, ImageFeatures):
            raise TypeError("a baseline is asked with pictures, not with features made of them")
        shown = None if row.image is None else self.picture_for(row.image)
        return replace(row, prompt=self.prompt_for(row.prompt, row.image), image=shown)
