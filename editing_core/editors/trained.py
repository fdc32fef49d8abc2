"""Editors whose one module was trained: what identifies them, and how they are saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn

from editing_core.editors.base import Editor
from editing_core.errors import CheckpointCorrupt, FingerprintMismatch
from editing_core.experts.weights import (
    load_weights,
    read_description,
    save_part,
    weights_fingerprint,
)


class TrainedEditor(Editor):
    """An editor of one `module`, shaped by a frozen `config`. Immutable once loaded."""

    kind: ClassVar[str]
    config_type: ClassVar[type[Any]]
    config: Any
    module: nn.Module
    backbone_fingerprint: str
    _fingerprint: str | None = None

    def __init__(self, config: Any, *, backbone_fingerprint: str = "") -> None:
        self.config = config
        self.edit_layer = config.edit_layer
        self.backbone_fingerprint = backbone_fingerprint

    @property
    def fingerprint(self) -> str:
        """Identity of the module's weights and configuration."""
        if self._fingerprint is None:
            self._fingerprint = weights_fingerprint(self.module, asdict(self.config))
        return self._fingerprint

    def trainable_modules(self) -> tuple[nn.Module, ...]:
        """What a trainer may change."""
        return (self.module,)

    def save(
        self, weights: Path, description: Path, *, notes: Mapping[str, Any] | None = None
    ) -> None:
        """Write the checkpoint: safetensors (float16) and JSON. `notes` say how it was trained."""
        document = {
            "kind": self.kind,
            "config": asdict(self.config),
            "fingerprint": self.fingerprint,
            "backbone_fingerprint": self.backbone_fingerprint,
            "notes": dict(notes or {}),
        }
        save_part(weights, description, self.module, document)

    @classmethod
    def load(cls, weights: Path, description: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            CheckpointMissing: a file is not there.
            CheckpointCorrupt: a file is damaged or does not fit the other.
            FingerprintMismatch: the weights are not those that the description names.
        """
        document = read_description(description, kind=cls.kind)
        try:
            editor = cls(
                cls.config_type(**document["config"]),
                backbone_fingerprint=document.get("backbone_fingerprint", ""),
            )
        except (TypeError, ValueError) as error:
            raise CheckpointCorrupt(f"{description} has a bad setting: {error}") from error
        load_weights(weights, editor.module)
        editor.module.requires_grad_(False).eval()
        if document.get("fingerprint") != editor.fingerprint:
            raise FingerprintMismatch(f"{weights} is not what {description} describes")
        return editor
