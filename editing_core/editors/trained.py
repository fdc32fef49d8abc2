"""Editors whose one module was trained or measured, and is stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from editing_core.editors.base import Editor
from editing_core.experts.stored import StoredPart


class TrainedEditor(StoredPart, Editor):
    """An editor of one `module`, shaped by a frozen `config`. Immutable once loaded."""

    module: nn.Module

    def __init__(self, config: Any, *, backbone_fingerprint: str = "") -> None:
        super().__init__(config, backbone_fingerprint=backbone_fingerprint)
        self.edit_layer = config.edit_layer

    @property
    def stored(self) -> nn.Module:
        return self.module

    def trainable_modules(self) -> tuple[nn.Module, ...]:
        """What a trainer may change."""
        return (self.module,)

    def save(
        self, weights: Path, description: Path, *, notes: Mapping[str, Any] | None = None
    ) -> None:
        """Write the checkpoint; see `StoredPart.write`. `notes` say how it was trained."""
        self.write(weights, description, {"notes": dict(notes or {})})
