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
from app.store.artifacts import ArtifactShelf, Fingerprints
from app.store.database import Database
from app.store.edit_log import EditLog
from app.store.job_log import JobLog
from app.store.ledger import Ledger
from app.store.picture_keys import PictureKeys
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
    log: EditLog, jobs: JobLog, facts: ModelFacts, picture_key: PictureKeyOf, *, database: Database
) -> Recovered:
    """Blocking. Raises `StoreCorrupt` when history does not add up; a damaged row or artifact only
    takes its own edit out of service. `picture_key` is the loaded model's."""
    checked = log.audit()
    for damage in checked.damage:
        logger.error("%s", damage)
    log.confirm(checked)
    ledger, last = checked.ledger, checked.last
    keys = PictureKeys(
        log, made_by=f"{facts.backbone} {facts.eyes}", make=partial(_key_of, picture_key)
    )
    keys.load(database)
    shelf = ArtifactShelf(log, fingerprints_of(facts), keys)
    edit_ids = ledger.ids()
    active = set(ledger.active())
    entries = [
        entry
        for start in range(0, len(edit_ids), _BATCH)
        for entry in shelf.load(edit_ids[start : start + _BATCH])
        if entry.edit_id in active
    ]
    keys.save(database)
    empty = facts.empty_snapshot()
    snapshot = empty.evolve(ledger.head, activate=entries) if ledger.head else empty
    _tell_of_stale(shelf, ledger)
    logger.info(
        "recovered version %d: %d edits, %d active, %d unfit",
        ledger.head,
        len(edit_ids),
        len(entries),
        len(shelf.unfit),
    )
    return Recovered(
        ledger,
        last.digest if last else None,
        max(filter(None, (*edit_ids, jobs.newest_id())), default=None),
        shelf,
        empty,
        snapshot,
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
