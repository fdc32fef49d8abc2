"""Stored bytes turned into entries of the expert memory, checked on the way.

An edit whose bytes are damaged is *quarantined*, one made by other weights is *stale*: both are
listed, neither is ever served, and the log names them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.store.edit_log import EditLog, StoredArtifact
from editing_core.errors import ArtifactCorrupt
from editing_core.experts.codec import decode_artifact
from editing_core.experts.memory import MemoryEntry
from editing_core.types import EditArtifact

logger = logging.getLogger(__name__)

Unfit = Literal["quarantined", "stale"]


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Of the weights that are loaded."""

    backbone: str
    router: str
    editors: Mapping[str, str]

    def mismatch(self, artifact: EditArtifact) -> str | None:
        """Which weights the artifact was made by that are not loaded; None if all are."""
        if artifact.backbone_fingerprint != self.backbone:
            return "backbone"
        if artifact.router_fingerprint != self.router:
            return "router"
        if artifact.editor_fingerprint != self.editors.get(artifact.editor):
            return f"editor {artifact.editor}"
        return None


class ArtifactShelf:
    """Reads artifacts of one log for one set of weights, and remembers what is unfit to serve.

    `load` blocks. The rest is memory: image keys of every fit edit, active or not.
    """

    def __init__(self, log: EditLog, fingerprints: Fingerprints) -> None:
        self._log = log
        self._fingerprints = fingerprints
        self.unfit: dict[str, Unfit] = {}
        self.image_keys: dict[str, NDArray[np.float32]] = {}

    def load(self, edit_ids: Iterable[str]) -> list[MemoryEntry]:
        """Entries of the fit ones, in the order asked for; the others land in `unfit`."""
        wanted = list(edit_ids)
        found: dict[str, MemoryEntry] = {}
        for stored in self._log.artifacts(wanted):
            entry = self._entry(stored)
            if entry is not None:
                found[entry.edit_id] = entry
        return [found[edit_id] for edit_id in wanted if edit_id in found]

    def add(self, entry: MemoryEntry) -> None:
        """Take note of an edit just committed."""
        self.image_keys[entry.edit_id] = entry.artifact.key.image

    def _entry(self, stored: StoredArtifact) -> MemoryEntry | None:
        record = stored.record
        try:
            artifact = decode_artifact(stored.check())
        except (ValueError, ArtifactCorrupt) as error:
            self._set_aside(record.id, "quarantined", str(error))
            return None
        if (other := self._fingerprints.mismatch(artifact)) is not None:
            self._set_aside(record.id, "stale", f"it was made by another {other}")
            return None
        self.unfit.pop(record.id, None)
        entry = MemoryEntry(record.id, artifact, record.image_digest, record.prompt)
        self.add(entry)
        return entry

    def _set_aside(self, edit_id: str, why: Unfit, reason: str) -> None:
        self.image_keys.pop(edit_id, None)
        if self.unfit.get(edit_id) != why:
            logger.error("edit %s is %s and will not be served: %s", edit_id, why, reason)
        self.unfit[edit_id] = why
