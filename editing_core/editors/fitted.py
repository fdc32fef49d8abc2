"""`fitted`: an editor without a trained generator. Its expert is made by gradient, edit by edit.

The expert is an answer-aligned one (`experts.slots`). What a slot reads with is found, not learned:
the model's own whitened state where the token is due, averaged over the edit's picture and a few
augmented views of it; other wordings have sets of slots of their own. What it writes starts at
nothing and takes a few gradient steps, until the target is the greedy answer on all these rows:

    z_i = beta (cos(norm(h), u_i) - theta) - gamma |i - t|        down = beta u, bias = -beta theta

Who acts is the router's to say, so no threshold stands between it and the answer: the null slot
lies below any cosine, and in words that nobody has read the order of the tokens says which is due.
What is written is fitted on such words too (`other_words`). `theta` is for experts that share the
softmax, and for one that is to keep silent on some rows (`guarded`).

All it needs of a model are statistics of the rows that answers are predicted from, measured once
(`Fitted.measure`), so any model is editable from its first day.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from editing_core.augmentations import augmented
from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PromptRow
from editing_core.editors.base import Companion, Fit, Seen
from editing_core.editors.other_words import other_words
from editing_core.editors.trained import TrainedEditor
from editing_core.experts.descent import SlotDescent
from editing_core.experts.slots import NULL_FIELD, AlignedIntervention, SlotExpert
from editing_core.experts.weights import round_weights
from editing_core.experts.whitening import RowStatistics
from editing_core.identity import image_digest
from editing_core.states import EditStates, Intervention, Norm
from editing_core.types import EditArtifact, EditRequest, Positions

KIND = "fitted"
NORM = "fitted"

TEMPLATES = ("Please answer: {prompt}", "{prompt} Answer briefly.", "A question. {prompt}")
"""Ways to ask anything in other words."""

_ROWS_AT_ONCE = 8

_NULL = -1.5
"""The null slot's logit as a cosine: lower than any."""

_ORDER = 0.5
"""What a slot out of its turn loses at least, as a cosine: the order of the tokens is certain, what
unfamiliar states say of it is not."""


@dataclass(frozen=True, slots=True)
class FittedConfig:
    """What is measured, and how experts are made of it. Part of the fingerprint.

    `rank` of the measured covariance. `beta`, `theta`, `gamma` as above. `views` of the edit's
    picture and `templates` of its prompt are seen beside it. Steps have `rate` times the size of
    the model's own states, at most `max_steps` of them.
    """

    hidden: int
    edit_layer: int
    rank: int = 64
    beta: float = 20.0
    theta: float = 0.6
    gamma: float = 2.0
    views: int = 2
    templates: int = 2
    rate: float = 0.5
    max_steps: int = 32
    margin: float = 2.0


class Fitted(TrainedEditor):
    """The editor. Immutable once measured or loaded."""

    name = "fitted"
    positions: Positions = "from_last_prompt_token"

    kind = KIND
    config_type = FittedConfig
    config: FittedConfig

    def __init__(self, config: FittedConfig, *, backbone_fingerprint: str = "") -> None:
        super().__init__(config, backbone_fingerprint=backbone_fingerprint)
        self.module: RowStatistics = RowStatistics(config.hidden, rank=config.rank)

    @classmethod
    @torch.no_grad()
    def measure(
        cls, backbone: Backbone, layer: int, rows: Sequence[PromptRow], **settings: float
    ) -> Fitted:
        """The editor of a backbone that acts at `layer`; `settings` are those of `FittedConfig`.

        Args:
            rows: questions as users ask them, about pictures of many kinds, some of them with
                answers. A hundred are plenty.

        Raises:
            ValueError: fewer than two rows have answers of two tokens or more.
        """
        first: list[Tensor] = []
        later: list[Tensor] = []
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            batch = backbone.prepare(rows[start : start + _ROWS_AT_ONCE])
            hidden = backbone.lower(batch, layer).float()
            for b, row in enumerate(batch.rows):
                last = batch.padding[b] + row.spans.last_prompt
                first.append(hidden[b, last])
                # The row of the last token predicts nothing.
                later.extend(hidden[b, last + 1 : -1])
        if len(later) < 2:
            raise ValueError("some rows need an answer of two tokens or more to be measured by")
        config = FittedConfig(backbone.hidden_size, layer, **settings)  # type: ignore[arg-type]
        editor = cls(config, backbone_fingerprint=backbone.fingerprint)
        editor.module.measure(torch.stack(first), torch.stack(later))
        round_weights(editor.module)
        editor.module.to(backbone.device)
        return editor

    @property
    def norms(self) -> Mapping[str, Norm]:
        """The whitening that the slots are read with."""
        return {NORM: self.module}

    def companions(self, request: EditRequest) -> Sequence[Companion]:
        """The user's rephrases, templates of the prompt, and augmented views of the picture."""
        own = dict.fromkeys((request.prompt, *request.rephrases))
        others = [template.format(prompt=request.prompt) for template in TEMPLATES]
        words = list(dict.fromkeys((*own, *others[: self.config.templates])))
        reworded = [Companion(words[i], request.image, i) for i in range(1, len(words))]
        seed = int(image_digest(request.image).removeprefix("sha256:")[:16], 16)
        views = [
            augmented(request.image, np.random.default_rng([seed, i]))
            for i in range(self.config.views)
        ]
        return (*reworded, *(Companion(request.prompt, view) for view in views))

    @torch.no_grad()
    def encode(
        self, states: EditStates, seen: Sequence[Seen] = ()
    ) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
        """The slots as they read; what they write comes of `fit`. See `Editor.encode`."""
        count = len(states.target_ids)
        steps = torch.arange(1, count + 1, device=states.hidden.device)
        rows: dict[int, list[Tensor]] = defaultdict(list)
        rows[0].append(self.module(states.predicting, steps))
        for companion, found in seen:
            rows[companion.wording].append(self.module(found.predicting, steps))
        sets = [
            torch.nn.functional.normalize(torch.stack(rows[wording]).mean(0), dim=-1)
            for wording in sorted(rows)
        ]
        down = self.config.beta * torch.cat(sets)
        expert = SlotExpert(
            down=down,
            up=torch.zeros_like(states.predicting),
            bias=torch.full_like(down[:, 0], -self.config.beta * self.config.theta),
            gamma=down.new_tensor(max(self.config.gamma, _ORDER * self.config.beta)),
            norm=NORM,
            null=self.config.beta * (_NULL - self.config.theta),
        )
        return expert.payload(), expert.metadata()

    def fit(self, request: EditRequest, states: EditStates, artifact: EditArtifact) -> Fit:
        """Steps on what the slots write, until it holds in other words too."""
        del states, artifact
        config = self.config
        return Fit(
            units={"up": float(self.module.size)},
            optimise=partial(SlotDescent, lr=config.rate),
            max_steps=config.max_steps,
            margin=config.margin,
            companions=[Companion(way, request.image, 1) for way in other_words(request.prompt)],
        )

    def intervention(
        self,
        experts: Sequence[tuple[EditArtifact, float]],
        *,
        norms: Mapping[str, Norm] | None = None,
    ) -> Intervention:
        """Fuse one row's experts, on the device of the statistics; see `Editor.intervention`."""
        device = self.module.size.device
        return AlignedIntervention(
            [
                (SlotExpert.from_payload(a.payload, a.metadata, device=device), weight)
                for a, weight in experts
            ],
            norms={**self.norms, **(norms or {})},
        )

    def guarded(self, artifact: EditArtifact) -> EditArtifact:
        """With `theta` in force again: silent in words that its slots do not recognise."""
        if NULL_FIELD not in artifact.metadata:
            return artifact
        metadata = {name: value for name, value in artifact.metadata.items() if name != NULL_FIELD}
        return replace(artifact, metadata=metadata)

    def movable(self, artifact: EditArtifact, *, keeps: bool) -> tuple[str, ...]:
        """What is written; what it is written on only where rows must be left alone."""
        del artifact
        return ("up", "down", "bias") if keeps else ("up",)
