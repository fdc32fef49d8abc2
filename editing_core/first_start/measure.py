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

from editing_core.backbones.base import Backbone
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
    """Measure and write `<name>.safetensors` and `<name>.json` into `folder`, one by one."""
    material = Material(backbone, notify=notify)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        logger.info("first start of this backbone: measuring %s", name)
        part: Part = MEASURED.resolve(name)(material)
        part.save(folder / f"{name}.safetensors", folder / f"{name}.json")
        logger.info("measured %s, kept in %s", name, folder)
