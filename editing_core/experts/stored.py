"""What routers and trained editors share: their identity, and how they are saved and loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn

from editing_core.errors import CheckpointCorrupt, FingerprintMismatch
from editing_core.experts.weights import (
    load_weights,
    read_description,
    save_part,
    weights_fingerprint,
)


class StoredPart(ABC):
    """Weights for one backbone, shaped by a frozen `config`. Immutable once loaded."""

    kind: ClassVar[str]
    config_type: ClassVar[type[Any]]
    config: Any
    backbone_fingerprint: str
    _fingerprint: str | None = None

    def __init__(self, config: Any, *, backbone_fingerprint: str = "") -> None:
        self.config = config
        self.backbone_fingerprint = backbone_fingerprint

    @property
    @abstractmethod
    def stored(self) -> nn.Module:
        """Whose weights these are."""

    @property
    def fingerprint(self) -> str:
        """Identity of weights and configuration, `sha256:...`; of nothing else that is stored."""
        if self._fingerprint is None:
            self._fingerprint = weights_fingerprint(self.stored, asdict(self.config))
        return self._fingerprint

    def write(self, weights: Path, description: Path, more: Mapping[str, Any]) -> None:
        """Write the checkpoint: safetensors (float16) and JSON, which `more` goes into."""
        document = {
            "kind": self.kind,
            "config": asdict(self.config),
            "fingerprint": self.fingerprint,
            "backbone_fingerprint": self.backbone_fingerprint,
            **more,
        }
        save_part(weights, description, self.stored, document)

    @classmethod
    def load(cls, weights: Path, description: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            CheckpointMissing: a file is not there.
            CheckpointCorrupt: a file is damaged or does not fit the other.
            FingerprintMismatch: the weights are not those that the description names.
        """
        document = read_description(description, kind=cls.kind)
        try:
            part = cls(
                cls.config_type(**document["config"]),
                backbone_fingerprint=document.get("backbone_fingerprint", ""),
                **cls.described(document),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointCorrupt(f"{description} has a bad setting: {error}") from error
        load_weights(weights, part.stored)
        part.stored.requires_grad_(False).eval()
        if document.get("fingerprint") != part.fingerprint:
            raise FingerprintMismatch(f"{weights} is not what {description} describes")
        return part

    @classmethod
    def described(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        """What else a part of this kind is made of, as its description says it."""
        del document
        return {}
