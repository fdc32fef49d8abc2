"""Stored bytes turned into entries of the expert memory, checked on the way.

An edit whose bytes are damaged is *quarantined*, one made by other weights is *stale*: both are
listed, neither is ever served, and the log names them.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.store.current import StoredArtifact
from app.store.edit_log import EditLog
from app.store.key_table import KeyTable
from app.store.picture_keys import PictureKeys
from app.store.records import EditRecord, MadeBy
from editing_core.errors import ArtifactCorrupt
from editing_core.experts.codec import decode_artifact, read_head
from editing_core.experts.memory import MemoryEntry, Name
from editing_core.types import EditArtifact, PictureKey

logger = logging.getLogger(__name__)

EDIT_CACHE = 256 * 2**20
"""Bytes of entries that are kept, unless somebody says otherwise."""
_OVERHEAD = 8192
"""Bytes counted for each entry beside its arrays: the objects around them."""


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

    Entries are read when they are needed, checked, and kept as long as `room` bytes hold them: it
    is the `Source` of snapshots, called by any thread. `keys` are image keys of every fit edit,
    active or not.
    """

    def __init__(
        self,
        log: EditLog,
        fingerprints: Fingerprints,
        picture_keys: PictureKeys,
        *,
        room: int = EDIT_CACHE,
    ) -> None:
        self._log = log
        self._fingerprints = fingerprints
        self._picture_keys = picture_keys
        self._lock = threading.RLock()
        self._kept: OrderedDict[Name, MemoryEntry] = OrderedDict()
        self._room = room
        self.unfit: dict[str, Unfit] = {}
        self.keys = KeyTable()
        self.on_unfit: Callable[[str], None] = lambda _edit_id: None

    def fetch(self, names: Sequence[Name]) -> list[MemoryEntry | None]:
        """Entries in the order of `names`. None where the bytes are damaged by now: such an edit
        is quarantined from then on. Blocking where one is not kept."""
        with self._lock:
            found = {name: self._kept[name] for name in names if name in self._kept}
            for name in found:
                self._kept.move_to_end(name)
        missing = [name for name in names if name not in found]
        if missing:
            read = self._read_all([edit_id for edit_id, _ in missing])
            found |= {entry.name: entry for entry in read.values()}
            for edit_id, revision in missing:
                if (edit_id, revision) not in found:  # it is known by a newer state by now
                    found |= {entry.name: entry for entry in self.load_at([edit_id], revision)}
        return [found.get(name) for name in names]

    def load(self, edit_ids: Iterable[str]) -> list[MemoryEntry]:
        """Entries of the fit ones as they are now, in the order asked for; the others land in
        `unfit`. Blocking."""
        wanted = list(edit_ids)
        found = self._read_all(wanted)
        return [found[edit_id] for edit_id in wanted if edit_id in found]

    def load_at(self, edit_ids: list[str], version: int) -> list[MemoryEntry]:
        """The same, with the keys that they had at `version`. What is unfit is left out, and says
        nothing of the edit as it is now. Blocking."""
        read = (self.read(stored) for stored in self._log.artifacts(edit_ids, at=version))
        return [entry for entry in read if isinstance(entry, MemoryEntry)]

    def _read_all(self, edit_ids: list[str]) -> dict[str, MemoryEntry]:
        found: dict[str, MemoryEntry] = {}
        for stored in self._log.artifacts(edit_ids):
            entry = self.read(stored)
            if isinstance(entry, Unfit):
                self._set_aside(stored.record.id, entry)
            else:
                found[entry.edit_id] = entry
                self._keep(entry)
                self._note(entry.edit_id, entry.artifact.key.image)
        return found

    def glance(self, edit_ids: list[str]) -> None:
        """Check what is stored of these edits, and take note of their image keys. Blocking.

        Their bytes are those that were committed; what they say is read when it is needed.
        """
        fit: list[tuple[str, NDArray[np.float32]]] = []
        for stored in self._log.artifacts(edit_ids):
            key = self._glance(stored)
            if isinstance(key, Unfit):
                self._set_aside(stored.record.id, key)
            else:
                fit.append((stored.record.id, key))
        if fit:
            self.keys.fill([edit_id for edit_id, _ in fit], np.stack([key for _, key in fit]))

    def _glance(self, stored: StoredArtifact) -> NDArray[np.float32] | Unfit:
        try:
            head = read_head(stored.check())
        except (ValueError, ArtifactCorrupt) as error:
            return Unfit("quarantined", str(error))
        if (reason := self._fingerprints.mismatch(head)) is not None:
            return Unfit("stale", reason, made_by(head))
        try:
            return self._seen_now(head, stored.record).image
        except ValueError as error:
            return Unfit("quarantined", str(error))

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
            artifact = self._as_seen_now(artifact, record)
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
            revision=stored.version or 0,
        )

    def _as_seen_now(self, artifact: EditArtifact, record: EditRecord) -> EditArtifact:
        """The artifact under the image key that the loaded eyes make of its picture."""
        key = self._seen_now(artifact, record)
        eyes = self._fingerprints.eyes
        return artifact if artifact.eyes_fingerprint == eyes else artifact.seen_by(eyes, key)

    def _seen_now(self, artifact: EditArtifact, record: EditRecord) -> PictureKey:
        if artifact.eyes_fingerprint == self._fingerprints.eyes:
            key = PictureKey(artifact.key.image, artifact.key.sketch)
            self._picture_keys.note(record.image_digest, key)
            return key
        return self._picture_keys.get(record.image_digest)

    # --- as a whole ------------------------------------------------------------------------

    def dump(self) -> tuple[dict[str, Any], NDArray[np.float32]]:
        """What is known of all edits: JSON values, and image keys."""
        ids, keys = self.keys.dump()
        unfit = {
            edit_id: [each.status, each.reason, each.made_by and asdict(each.made_by)]
            for edit_id, each in self.unfit.items()
        }
        return {"keys": ids, "unfit": unfit}, keys

    def restore(self, values: Mapping[str, Any], keys: NDArray[np.float32]) -> None:
        """The inverse of `dump`, on a shelf that knows nothing yet."""
        self.keys.fill(values["keys"], keys)
        for edit_id, (status, reason, weights) in values["unfit"].items():
            self.unfit[edit_id] = Unfit(status, reason, MadeBy(**weights) if weights else None)

    def stale(self) -> list[str]:
        """Edits made by other weights than these, in no special order."""
        return [edit_id for edit_id, found in self.unfit.items() if found.status == "stale"]

    def add(self, entry: MemoryEntry) -> None:
        """Take note of an edit just committed, or of one made anew."""
        self.unfit.pop(entry.edit_id, None)
        self._keep(entry)
        self._note(entry.edit_id, entry.artifact.key.image)

    def _note(self, edit_id: str, key: NDArray[np.float32]) -> None:
        with self._lock:
            self.keys.put(edit_id, key)

    def _keep(self, entry: MemoryEntry) -> None:
        with self._lock:
            if entry.revision and self._kept.pop(entry.name, None) is None:
                self._room -= _size(entry)
            if entry.revision:
                self._kept[entry.name] = entry
            while self._room < 0 and self._kept:
                _, oldest = self._kept.popitem(last=False)
                self._room += _size(oldest)

    def _set_aside(self, edit_id: str, found: Unfit) -> None:
        with self._lock:
            self.keys.drop(edit_id)
        # Stale ones may be all there are; whoever loads them tells of them together.
        if found.status == "quarantined" and self.unfit.get(edit_id) != found:
            logger.error("edit %s is quarantined and not served: %s", edit_id, found.reason)
        self.unfit[edit_id] = found
        self.on_unfit(edit_id)


def _size(entry: MemoryEntry) -> int:
    """In bytes, roughly."""
    artifact, key = entry.artifact, entry.artifact.key
    arrays = key.image.nbytes + key.text.nbytes + key.visual.nbytes
    return _OVERHEAD + arrays + sum(t.nbytes for t in artifact.payload.values())
