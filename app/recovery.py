"""From disk to a state that can serve: fold the log, verify artifacts, build the first snapshot.

Everything in memory is a function of the log and the loaded weights, so a restart changes nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from app.device.facts import ModelFacts
from app.images import decode_png
from app.store import checkpoint
from app.store.artifacts import EDIT_CACHE, ArtifactShelf, Fingerprints
from app.store.database import Database
from app.store.edit_log import EditLog
from app.store.job_log import JobLog
from app.store.ledger import Ledger
from app.store.picture_keys import PictureKeys
from app.store.records import digest_of
from editing_core.experts.memory import Snapshot
from editing_core.identity import image_digest
from editing_core.types import ImageArray, PictureKey

logger = logging.getLogger(__name__)

PictureKeyOf = Callable[[ImageArray], PictureKey]

_BATCH = 1000
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Recovered:
    """Where the writer goes on. `last_digest` is that of the newest event, None before any;
    `last_edit_id` the highest id ever kept, of an edit or of one that was only asked for."""

    ledger: Ledger
    last_digest: str | None
    last_edit_id: str | None
    shelf: ArtifactShelf
    empty: Snapshot
    snapshot: Snapshot


def recover(
    log: EditLog,
    jobs: JobLog,
    facts: ModelFacts,
    picture_key: PictureKeyOf,
    *,
    database: Database,
    room: int = EDIT_CACHE,
) -> Recovered:
    """Blocking. Raises `StoreCorrupt` when history does not add up; a damaged row or artifact only
    takes its own edit out of service. `picture_key` is the loaded model's; `room` is how many bytes
    of edits are kept in memory."""
    keys = PictureKeys(
        log, made_by=f"{facts.backbone} {facts.eyes}", make=partial(_key_of, picture_key)
    )
    keys.load(database)
    shelf = ArtifactShelf(log, fingerprints_of(facts), keys, room=room)
    folded = _untouched(log, facts, shelf, database) or _folded(log, shelf)
    keys.save(database)
    ledger = folded.ledger
    edit_ids = ledger.ids()
    empty = facts.empty_snapshot(shelf)
    snapshot = empty
    if ledger.head:
        parts = shelf.keys.parts(ledger.active(), ledger.revision, shelf)
        snapshot = empty.of(ledger.head, parts)
    _tell_of_stale(shelf, ledger)
    logger.info(
        "recovered version %d: %d edits, %d active, %d unfit",
        ledger.head,
        len(edit_ids),
        len(snapshot),
        len(shelf.unfit),
    )
    return Recovered(
        ledger,
        folded.digest,
        max(filter(None, (*edit_ids, jobs.newest_id())), default=None),
        shelf,
        empty,
        snapshot,
    )


@dataclass(frozen=True, slots=True)
class _Folded:
    """`digest` is that of the newest event."""

    ledger: Ledger
    digest: str | None


def _folded(log: EditLog, shelf: ArtifactShelf) -> _Folded:
    """History from its first event on, and every artifact, checked."""
    checked = log.audit()
    for damage in checked.damage:
        logger.error("%s", damage)
    log.confirm(checked)
    edit_ids = checked.ledger.ids()
    for start in range(0, len(edit_ids), _BATCH):
        shelf.glance(edit_ids[start : start + _BATCH])
    return _Folded(checked.ledger, checked.last.digest if checked.last else None)


def _untouched(
    log: EditLog, facts: ModelFacts, shelf: ArtifactShelf, database: Database
) -> _Folded | None:
    """What was known when the database was closed, if nobody wrote to it since."""
    found = checkpoint.read(database.where, database.opened_as, _made_for(facts))
    if found is None or (found.state["head"], *found.state["newest"]) != log.newest():
        return None
    for damage in log.audit_jobs():
        logger.error("%s", damage)
    logger.info("nobody wrote to the database since it was closed: its checkpoint is taken")
    shelf.restore(found.state, found.keys)
    for edit_id, unfit in shelf.unfit.items():
        if unfit.status == "quarantined":
            logger.error("edit %s is quarantined and not served: %s", edit_id, unfit.reason)
    return _Folded(Ledger.load(found.state), found.state["newest"][0])


def checkpoint_of(
    log: EditLog, facts: ModelFacts, ledger: Ledger, shelf: ArtifactShelf
) -> checkpoint.Checkpoint | None:
    """What the next start can go on with; None where memory is not where the database is."""
    head, *newest = log.newest()
    if head != ledger.head:
        return None
    state, keys = shelf.dump()
    state |= {**ledger.dump(), "newest": newest}
    return checkpoint.Checkpoint(_made_for(facts), state, keys)


def _made_for(facts: ModelFacts) -> str:
    weights = fingerprints_of(facts)
    return digest_of(
        repr(
            (weights.backbone, weights.router, sorted(weights.editors.items()), weights.eyes)
        ).encode()
    )


def _key_of(picture_key: PictureKeyOf, png: bytes) -> tuple[str, PictureKey]:
    pixels = decode_png(png)
    return image_digest(pixels), picture_key(pixels)


def _tell_of_stale(shelf: ArtifactShelf, ledger: Ledger) -> None:
    """How many, why, and what to do: one line, however many there are."""
    stale = [i for i in shelf.stale() if ledger.status(i) != "rolled_back"]
    if not stale:
        return
    reasons = Counter(shelf.unfit[edit_id].reason for edit_id in stale)
    more = f" and {len(stale) - _NAMED} more" if len(stale) > _NAMED else ""
    logger.error(
        "%d edits are stale and not served (%s): %s%s; stop the server and run `errata reencode`, "
        "which makes them anew",
        len(stale),
        ", ".join(f"{count} {reason}" for reason, count in reasons.items()),
        ", ".join(stale[:_NAMED]),
        more,
    )


def fingerprints_of(facts: ModelFacts) -> Fingerprints:
    return Fingerprints(facts.backbone, facts.router, facts.editors, facts.eyes)
