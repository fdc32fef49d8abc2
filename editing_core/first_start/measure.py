"""The first start of a backbone: every part that nothing was trained for is measured and written.

A maker is registered in `MEASURED` as `measure(material) -> part`; the part has `save(weights,
description)`, which writes its description last. So a part is wholly there or not there at all, and
a start that was cut short goes on with the parts that are missing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from editing_core.backbones.base import Backbone
from editing_core.errors import NotFinite
from editing_core.first_start.material import Material
from editing_core.registry import MEASURED
from editing_core.types import Notify

logger = logging.getLogger(__name__)


class Part(Protocol):
    """What a maker makes."""

    def save(self, weights: Path, description: Path) -> None: ...


def measure_parts(
    backbone: Backbone, folder: Path, names: Sequence[str], notify: Notify | None = None
) -> None:
    """Measure and write `<name>.safetensors` and `<name>.json` into `folder`, one by one.

    Raises `NotFinite`, with that part unwritten, where the backbone's states are no numbers.
    """
    material = Material(backbone, notify=notify)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        logger.info("first start of this backbone: measuring %s", name)
        try:
            part: Part = MEASURED.resolve(name)(material)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise NotFinite(
                f"{name} cannot be measured: this model's states are no numbers"
            ) from error
        part.save(folder / f"{name}.safetensors", folder / f"{name}.json")
        logger.info("measured %s, kept in %s", name, folder)
