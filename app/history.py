"""The state that events make: ledger, snapshot, and the one place where both move forward.

Everything of the next version is prepared before its transaction; after the commit there is
nothing left that could fail, and the new snapshot is in place before anybody is told.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.device.facts import ModelFacts
from app.errors import EditNotFound, VersionNotFound, VersionNotReached
from app.recovery import Recovered, checkpoint_of
from app.store.artifacts import Unfit
from app.store.checkpoint import Checkpoint
from app.store.commits import Commit, Created, Reencoded, Stamp
from app.store.current import StoredArtifact
from app.store.edit_log import EditLog
from app.store.ledger import EditStatus, LedgerEdit
from app.store.roll import Roll
from app.ulid import UlidSequence
from editing_core.experts.memory import MemoryEntry, Snapshot

Result = TypeVar("Result")

MIN_VERSION_WAIT_S = 2.0
_PINNED_VERSIONS = 8


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, for the audit trail. `key_id` is that of an API key, empty where there are none."""

    request_id: str
    actor: str = "local"
    key_id: str = ""
    is_admin: bool = True


class History:
    """Lives on the event loop's thread. Whoever commits holds `lock`; readers need nothing."""

    def __init__(
        self,
        log: EditLog,
        recovered: Recovered,
        *,
        publish: Callable[[Snapshot], None] = lambda _snapshot: None,
    ) -> None:
        """`publish` is told of every snapshot that becomes the newest, before anybody else."""
        self.log = log
        self._publish = publish
        self.lock = asyncio.Lock()
        self.ledger = recovered.ledger
        self.snapshot = recovered.snapshot
        self._shelf = recovered.shelf
        self._ids = UlidSequence(after=recovered.last_edit_id)
        self._last_digest = recovered.last_digest
        self._empty = recovered.empty
        self._past: OrderedDict[int, Snapshot] = OrderedDict()
        self._moved = asyncio.Event()
        self.roll = Roll((edit_id, self.status(edit_id)) for edit_id in self.ledger.ids())
        """The status of every edit, kept."""
        self._shelf.on_unfit = self._note
        publish(self.snapshot)

    def _note(self, edit_id: str) -> None:
        """An edit's bytes were found unfit, on whichever thread."""
        if edit_id in self.ledger:
            self.roll.put(edit_id, self.status(edit_id))

    @property
    def head(self) -> int:
        return self.ledger.head

    @property
    def none(self) -> Snapshot:
        """The snapshot of version 0, without any edit."""
        return self._empty

    def checkpoint(self, facts: ModelFacts) -> Checkpoint | None:
        """What the next start can go on with. Blocking; nothing may be committed meanwhile."""
        return checkpoint_of(self.log, facts, self.ledger, self._shelf)

    def next_id(self) -> str:
        return self._ids.next()

    def require(self, edit_id: str, *, param: str = "id") -> LedgerEdit:
        if edit_id not in self.ledger:
            raise EditNotFound(f"There is no edit {edit_id!r}.", param=param)
        return self.ledger[edit_id]

    def status(self, edit_id: str) -> EditStatus:
        """The ledger's word, unless the edit's bytes are unfit to serve."""
        status = self.ledger.status(edit_id)
        if status == "rolled_back":
            return status
        unfit = self._shelf.unfit.get(edit_id)
        return status if unfit is None else unfit.status

    def stale(self) -> dict[str, Unfit]:
        """Edits made by other weights than those loaded, rolled back ones too, oldest first."""
        found = sorted(self._shelf.stale(), key=lambda edit_id: self.ledger[edit_id].version)
        return {edit_id: self._shelf.unfit[edit_id] for edit_id in found}

    def count_stale(self) -> int:
        """How many edits have the status `stale`."""
        return self.roll.count("stale")

    async def settled(self) -> None:
        """Return when no commit lies between database and memory."""
        async with self.lock:
            pass

    def entries(self, edit_ids: Sequence[str]) -> list[MemoryEntry]:
        """Of these edits, those fit to serve. Blocking."""
        return self._shelf.load(edit_ids)

    def read(self, stored: StoredArtifact) -> MemoryEntry | Unfit:
        """What was stored at any version, checked."""
        return self._shelf.read(stored)

    # --- snapshots --------------------------------------------------------------------------

    def require_version(self, version: int, *, param: str) -> None:
        if version > self.head:
            raise VersionNotFound(
                f"Version {version} does not exist; the newest is {self.head}.", param=param
            )

    async def wait_for(self, version: int) -> None:
        """Return once `version` is served here. Raises `VersionNotReached` after two seconds."""
        try:
            async with asyncio.timeout(MIN_VERSION_WAIT_S):
                while self.head < version:
                    await self._moved.wait()
        except TimeoutError as error:
            raise VersionNotReached(
                f"Version {version} has not been reached; this server is at {self.head}.",
                param="min_version",
                retry_after_s=1,
            ) from error

    async def snapshot_at(self, version: int) -> Snapshot:
        """The snapshot of any version up to now."""
        self.require_version(version, param="at_version")
        if version == self.head:
            return self.snapshot
        if version not in self._past:
            self._past[version] = await asyncio.to_thread(self._rebuilt, version)
            while len(self._past) > _PINNED_VERSIONS:
                self._past.popitem(last=False)
        self._past.move_to_end(version)
        return self._past[version]

    def _rebuilt(self, version: int) -> Snapshot:
        """Blocking, on any thread. All keys are in memory: what is made anew is a mask."""
        if version == 0:
            return self._empty
        ledger, keys = self.ledger, self._shelf.keys
        active = ledger.active(version)
        parts = keys.parts(active, lambda i: ledger.revision(i, version), self._shelf)
        past = self._empty.of(version, parts)
        # What is damaged may be of later than that: what it was then is whole.
        damaged = [i for i in active if i not in keys and ledger.revision(i) > version]
        whole = self._shelf.load_at(damaged, version) if damaged else []
        return past.with_more(whole) if whole else past

    def inactive_near(
        self, image_key: NDArray[np.float32], tau: float, snapshot: Snapshot
    ) -> list[tuple[str, float]]:
        """Edits known to `snapshot`'s version but not active in it, with cosine >= `tau`."""
        near = [
            (edit_id, cosine)
            for edit_id, cosine in self._shelf.keys.near(image_key, tau)
            if edit_id not in snapshot.entries and self.ledger[edit_id].version <= snapshot.version
        ]
        return sorted(near, key=lambda pair: (-pair[1], pair[0]))

    # --- the one way forward ----------------------------------------------------------------

    async def commit(
        self, commit: Commit, *, caller: Caller, brought: Sequence[MemoryEntry] = ()
    ) -> None:
        """Write one version and publish it. The caller holds `lock` and planned under it.

        `brought` are the edits whose artifacts the commit brings, as they are served from now on.
        Raises what `Database.write` raises; then nothing has changed.
        """
        version, changes = self.head + 1, commit.changes
        active = [c.edit_id for c in changes if c.after == "active"]
        fresh = {entry.edit_id: replace(entry, revision=version) for entry in brought}
        revived = [edit_id for edit_id in active if edit_id not in fresh]
        retired = [c.edit_id for c in changes if c.edit_id in self.snapshot.entries]
        entries = await asyncio.to_thread(self._shelf.load, revived)
        entries += [fresh[edit_id] for edit_id in active if edit_id in fresh]
        snapshot = await asyncio.to_thread(
            self.snapshot.evolve, version, activate=entries, deactivate=retired
        )
        stamp = Stamp(
            version=version,
            at=now(),
            actor=caller.actor,
            request_id=caller.request_id,
            previous_digest=self._last_digest,
        )
        event = await asyncio.to_thread(self.log.append, commit, stamp)
        self.ledger.apply(
            version,
            changes,
            created=commit.record.place if isinstance(commit, Created) else None,
            remade=event.reencoding.edit_id if event.reencoding else None,
            scopes={each.edit_id: each.scope for each in event.scopes},
        )
        for entry in fresh.values():
            self._shelf.add(entry)
        for edit_id in {*fresh, *(change.edit_id for change in changes)}:
            self.roll.put(edit_id, self.status(edit_id))
        if isinstance(commit, Reencoded):
            self._past.clear()  # earlier versions, too, are answered with artifacts as they are now
        self._last_digest = event.digest
        self._publish(snapshot)
        self.snapshot = snapshot
        self._moved.set()
        self._moved = asyncio.Event()


async def to_the_end(story: Coroutine[Any, Any, Result]) -> Result:
    """Run `story` to its end even if whoever waits for it goes away: a commit is not left halfway
    between database and memory."""
    return await asyncio.shield(asyncio.ensure_future(story))


def now() -> str:
    """RFC 3339, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
