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

from app.store.current import StoredArtifact
from app.store.edit_log import EditLog
from app.store.picture_keys import PictureKeys
from app.store.records import MadeBy
from editing_core.errors import ArtifactCorrupt
from editing_core.experts.codec import decode_artifact
from editing_core.experts.memory import MemoryEntry
from editing_core.types import EditArtifact, PictureKey

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why an edit is not served. `made_by` are the weights that made it, where that can be told."""

    status: Literal["quarantined", "stale"]
    reason: str
    made_by: MadeBy | None = None


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Of the weights that are loaded."""

    backbone: str
    router: str
    editors: Mapping[str, str]
    eyes: str = ""

    def mismatch(self, artifact: EditArtifact) -> str | None:
        """By what other weights than these the artifact was made; None if by these."""
        if artifact.backbone_fingerprint != self.backbone:
            return "made by another backbone"
        if artifact.router_fingerprint != self.router:
            return "made by another router"
        if artifact.editor not in self.editors:
            return f"made by the editor {artifact.editor}, which is not loaded"
        if artifact.editor_fingerprint != self.editors[artifact.editor]:
            return f"made by another editor {artifact.editor}"
        return None


def made_by(artifact: EditArtifact) -> MadeBy:
    """The weights that made it, by its own word."""
    return MadeBy(**{name: getattr(artifact, name) for name in MadeBy.__slots__})


class ArtifactShelf:
    """Reads artifacts of one log for one set of weights, and remembers what is unfit to serve.

    `load` blocks. The rest is memory: image keys of every fit edit, active or not.
    """

    def __init__(self, log: EditLog, fingerprints: Fingerprints, keys: PictureKeys) -> None:
        self._log = log
        self._fingerprints = fingerprints
        self._keys = keys
        self.unfit: dict[str, Unfit] = {}
        self.image_keys: dict[str, NDArray[np.float32]] = {}

    def load(self, edit_ids: Iterable[str]) -> list[MemoryEntry]:
        """Entries of the fit ones, in the order asked for; the others land in `unfit`."""
        wanted = list(edit_ids)
        found: dict[str, MemoryEntry] = {}
        for stored in self._log.artifacts(wanted):
            entry = self.read(stored)
            if isinstance(entry, Unfit):
                self._set_aside(stored.record.id, entry)
            else:
                self.add(entry)
                found[entry.edit_id] = entry
        return [found[edit_id] for edit_id in wanted if edit_id in found]

    def load_at(self, edit_ids: Iterable[str], version: int) -> list[MemoryEntry]:
        """The same, with the keys that they had at `version`. What is unfit is left out."""
        wanted = list(edit_ids)
        read = (self.read(stored) for stored in self._log.artifacts(wanted, at=version))
        found = {entry.edit_id: entry for entry in read if isinstance(entry, MemoryEntry)}
        return [found[edit_id] for edit_id in wanted if edit_id in found]

    def read(self, stored: StoredArtifact) -> MemoryEntry | Unfit:
        """What is stored, checked."""
        record = stored.record
        try:
            artifact = decode_artifact(stored.check())
        except (ValueError, ArtifactCorrupt) as error:
            return Unfit("quarantined", str(error))
        if (reason := self._fingerprints.mismatch(artifact)) is not None:
            return Unfit("stale", reason, made_by(artifact))
        try:
            artifact = self._as_seen_now(artifact, record.image_digest)
        except ValueError as error:
            return Unfit("quarantined", str(error))
        return MemoryEntry(
            record.id,
            artifact,
            record.image_digest,
            record.prompt,
            target=record.target,
            rephrases=stored.standing.rephrases,
            not_for=stored.standing.not_for,
        )

    def _as_seen_now(self, artifact: EditArtifact, image_digest: str) -> EditArtifact:
        """The artifact under the image key that the loaded eyes make of its picture."""
        if artifact.eyes_fingerprint == self._fingerprints.eyes:
            self._keys.note(image_digest, PictureKey(artifact.key.image, artifact.key.sketch))
            return artifact
        return artifact.seen_by(self._fingerprints.eyes, self._keys.get(image_digest))

    def stale(self) -> list[str]:
        """Edits made by other weights than these, in no special order."""
        return [edit_id for edit_id, found in self.unfit.items() if found.status == "stale"]

    def add(self, entry: MemoryEntry) -> None:
        """Take note of an edit just committed, or of one made anew."""
        self.unfit.pop(entry.edit_id, None)
        self.image_keys[entry.edit_id] = entry.artifact.key.image

    def _set_aside(self, edit_id: str, found: Unfit) -> None:
        self.image_keys.pop(edit_id, None)
        # Stale ones may be all there are; whoever loads them tells of them together.
        if found.status == "quarantined" and self.unfit.get(edit_id) != found:
            logger.error("edit %s is quarantined and not served: %s", edit_id, found.reason)
        self.unfit[edit_id] = found
