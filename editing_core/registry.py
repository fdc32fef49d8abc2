"""Where each kind of part is registered: one line per implementation, imported when first used.

A value is `"module:attribute"`, so that naming an implementation costs no import and lower layers
never depend on higher ones.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any


class Registry(Mapping[str, str]):
    """Names of implementations of one contract, resolved late."""

    def __init__(self, kind: str, targets: Mapping[str, str]) -> None:
        self.kind = kind
        self._targets = dict(targets)

    def __getitem__(self, name: str) -> str:
        return self._targets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

    def resolve(self, name: str) -> Any:
        """The registered class or function.

        Raises `LookupError` naming what is registered instead when `name` is not.
        """
        target = self._targets.get(name)
        if target is None:
            known = ", ".join(sorted(self._targets))
            raise LookupError(f"unknown {self.kind} {name!r}; known: {known}")
        module, _, attribute = target.partition(":")
        return getattr(importlib.import_module(module), attribute)


# By `model_type` of the Hugging Face configuration.
BACKBONES = Registry(
    "backbone",
    {
        "blip-2": "editing_core.backbones.blip_2:Blip2Backbone",
        "gemma3": "editing_core.backbones.gemma3:Gemma3Backbone",
        "idefics3": "editing_core.backbones.idefics3:Idefics3Backbone",
        "instructblip": "editing_core.backbones.instructblip:InstructBlipBackbone",
        "internvl": "editing_core.backbones.internvl:InternVLBackbone",
        "llava": "editing_core.backbones.llava:LlavaBackbone",
        "llava_next": "editing_core.backbones.llava_next:LlavaNextBackbone",
        "llava_onevision": "editing_core.backbones.llava_onevision:LlavaOnevisionBackbone",
        "paligemma": "editing_core.backbones.paligemma:PaliGemmaBackbone",
        "qwen2_5_vl": "editing_core.backbones.qwen2_5_vl:Qwen25VLBackbone",
        "qwen2_vl": "editing_core.backbones.qwen2_vl:Qwen2VLBackbone",
        "qwen3_vl": "editing_core.backbones.qwen3_vl:Qwen3VLBackbone",
        "smolvlm": "editing_core.backbones.smolvlm:SmolVLMBackbone",
    },
)

# Two forms of one editor stand side by side, each with weights of its own.
EDITORS = Registry(
    "editor",
    {
        "fitted": "editing_core.editors.fitted:Fitted",
        "liveedit": "editing_core.editors.liveedit:LiveEdit",
        "liveedit-paper": "editing_core.editors.liveedit:LiveEdit",
        "visedit": "editing_core.editors.visedit:VisEdit",
    },
)

# By the `kind` that its description names.
ROUTERS = Registry(
    "router",
    {
        "router": "editing_core.routing.router:Router",
        "frozen_features": "editing_core.routing.frozen_features:FrozenRouter",
    },
)

# What is measured of a backbone where its checkpoint has none, in this order, by part.
MEASURED = Registry(
    "measured part",
    {
        "router": "editing_core.first_start.router:measure_router",
        "fitted": "editing_core.first_start.fitted:measure_fitted",
    },
)

INDEXES = Registry(
    "index",
    {
        "exact": "editing_core.index.exact:ExactIndex",
        "faiss_flat": "editing_core.index.faiss_flat:FaissFlatIndex",
        "product": "editing_core.index.product:ProductIndex",
    },
)

# What a trainer, or a refinement at edit time, minimises.
OBJECTIVES = Registry(
    "objective",
    {
        "liveedit": "editing_core.objectives.liveedit:LiveEditObjective",
        "odedit": "editing_core.objectives.odedit:ODEdit",
        "same_data": "editing_core.objectives.odedit:SameData",
    },
)

# Other ways to correct a model, for the benchmark's table.
BASELINES = Registry(
    "baseline",
    {
        "ft_l": "editing_core.editors.baselines.ft_l:FtL",
        "ft_m": "editing_core.editors.baselines.ft_m:FtM",
        "grace": "editing_core.editors.baselines.grace:Grace",
        "in_context": "editing_core.editors.baselines.in_context:InContext",
        "recipe": "editing_core.editors.baselines.recipe:Recipe",
    },
)

# Published benchmarks that `errata bench --dataset` reads.
DATASETS = Registry(
    "dataset",
    {
        "eic": "editing_core.evaluation.datasets.eic:EIc",
        "evqa": "editing_core.evaluation.datasets.evqa:EVqa",
        "vlkeb": "editing_core.evaluation.datasets.vlkeb:Vlkeb",
    },
)
