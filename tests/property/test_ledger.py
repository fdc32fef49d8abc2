"""The event log against a model of a dozen lines, with restarts, on a real database."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.store.commits import Commit, Created, Reencoded, Restored, Stamp, Switched
from app.store.database import Database
from app.store.edit_log import EditLog
from app.store.ledger import Change, Ledger
from app.store.records import EditRecord, MadeBy, Reencoding, StoredImage, digest_of
from tests.support.server import png
from tests.support.tiny_model import tiny_image

IMAGES = [StoredImage(f"sha256:{n}", png(tiny_image(n)), 48, 48) for n in range(2)]
PROMPTS = ["one", "two"]
WEIGHTS = MadeBy(
    editor="liveedit", editor_fingerprint="e", backbone_fingerprint="b", router_fingerprint="r"
)


@dataclass
class Simple:
    """An edit in the model: a list of these is all there is."""

    id: str
    slot: tuple[str, str]
    names: tuple[str, ...]
    rolled_back: bool = False


def status(history: list[Simple], position: int) -> str:
    """The rule, as written in the documentation."""
    edit = history[position]
    if edit.rolled_back:
        return "rolled_back"
    superseded = any(
        not other.rolled_back and (edit.id in other.names or (other.slot == edit.slot and newer))
        for newer, other in ((at > position, other) for at, other in enumerate(history))
    )
    return "superseded" if superseded else "active"


class LogMachine(RuleBasedStateMachine):
    """Random histories. `versions[v]` is what the model said at version v."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._url = f"sqlite:///{Path(self._folder.name) / 'errata.db'}"
        self._ids = (f"edit{n:04}" for n in itertools.count())
        self.model: list[Simple] = []
        self.versions: list[dict[str, str]] = [{}]
        self.remade: dict[str, int] = {}
        self._open()

    def _open(self) -> None:
        self.database = Database.open(self._url)
        self.log = EditLog(self.database)
        self.ledger, self.last = self.log.fold()

    def teardown(self) -> None:
        self.database.close()
        self._folder.cleanup()

    def _write(self, commit: Commit) -> None:
        stamp = Stamp(
            version=self.ledger.head + 1,
            at="2026-01-01T00:00:00.000Z",
            actor="local",
            request_id="r",
            previous_digest=self.last.digest if self.last else None,
        )
        self.last = self.log.append(commit, stamp)
        created = commit.record.place if isinstance(commit, Created) else None
        self.ledger.apply(stamp.version, commit.changes, created=created)
        self.versions.append(self._expected())

    def _expected(self) -> dict[str, str]:
        return {edit.id: status(self.model, at) for at, edit in enumerate(self.model)}

    @rule(
        image=st.sampled_from(IMAGES),
        prompt=st.sampled_from(PROMPTS),
        names=st.lists(st.integers(0, 50), max_size=2),
    )
    def create(self, image: StoredImage, prompt: str, names: list[int]) -> None:
        named = tuple(
            dict.fromkeys(self.model[n % len(self.model)].id for n in names if self.model)
        )
        record = EditRecord(
            id=next(self._ids),
            version=self.ledger.head + 1,
            editor="liveedit",
            prompt=f" {prompt}  ",
            target="t",
            image_digest=image.digest,
            before=None,
            after=None,
            verified=None,
            verified_version=None,
            supersedes=named,
            created_at="2026-01-01T00:00:00.000Z",
            created_by="local",
        )
        changes = self.ledger.plan_create(record.place)
        self.model.append(Simple(record.id, (image.digest, prompt), named))
        self._write(
            Created(
                changes=tuple(changes),
                record=record,
                artifact=b"bytes",
                image=image,
                timings_ms=dict,
            )
        )

    @precondition(lambda self: self.model)
    @rule(which=st.integers(0, 50))
    def roll_back(self, which: int) -> None:
        edit = self.model[which % len(self.model)]
        self._switch(edit, rolled_back=True)

    @precondition(lambda self: self.model)
    @rule(which=st.integers(0, 50))
    def reinstate(self, which: int) -> None:
        edit = self.model[which % len(self.model)]
        self._switch(edit, rolled_back=False)

    def _switch(self, edit: Simple, *, rolled_back: bool) -> None:
        plan = self.ledger.plan_roll_back if rolled_back else self.ledger.plan_reinstate
        changes = plan(edit.id)
        assert bool(changes) == (edit.rolled_back != rolled_back)
        edit.rolled_back = rolled_back
        if changes:
            self._write(
                Switched(
                    type="rolled_back" if rolled_back else "reinstated", changes=tuple(changes)
                )
            )

    @rule(back=st.integers(0, 50))
    def restore(self, back: int) -> None:
        version = back % len(self.versions)
        then = self.versions[version]
        changes = self.ledger.plan_restore(version)
        for edit in self.model:
            edit.rolled_back = then.get(edit.id, "rolled_back") == "rolled_back"
        assert bool(changes) == (self._expected() != self.versions[-1])
        if changes:
            self._write(Restored(changes=tuple(changes), from_version=version))
        assert {i: s for i, s in self.versions[-1].items() if i in then} == then

    @precondition(lambda self: self.model)
    @rule(which=st.integers(0, 50))
    def reencode(self, which: int) -> None:
        edit_id = self.model[which % len(self.model)].id
        version = self.ledger.head + 1
        self.remade[edit_id] = version
        made_anew = Reencoding(
            edit_id=edit_id,
            artifact_digest=digest_of(f"{edit_id} by {version}".encode()),
            old=WEIGHTS,
            new=WEIGHTS,
            before=None,
            after=f"by {version}",
            verified=None,
            verified_version=None,
            damaged=(),
            refinement_steps=0,
        )
        changes = self.ledger.plan_reencode(edit_id)
        artifact = f"{edit_id} by {version}".encode()
        self._write(Reencoded(changes=tuple(changes), reencoding=made_anew, artifact=artifact))

    @rule()
    def restart(self) -> None:
        self.database.close()
        self._open()

    @invariant()
    def the_ledger_says_what_the_model_says(self) -> None:
        expected = self.versions[-1]
        assert {i: self.ledger.status(i) for i in self.ledger.ids()} == expected
        assert self.ledger.head == len(self.versions) - 1

    @invariant()
    def the_newest_artifact_counts(self) -> None:
        for stored in self.log.artifacts(self.ledger.ids()):
            version = self.remade.get(stored.record.id)
            newest = f"{stored.record.id} by {version}".encode() if version else b"bytes"
            assert stored.check() == newest
            record = self.log.record(stored.record.id)
            assert record is not None
            assert record.after == (f"by {version}" if version else None)

    @invariant()
    def every_version_can_still_be_told(self) -> None:
        for version, then in enumerate(self.versions):
            active = [edit_id for edit_id, said in then.items() if said == "active"]
            assert self.ledger.active(version) == active


TestLog = LogMachine.TestCase
TestLog.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_a_ledger_refuses_what_does_not_follow() -> None:
    ledger = Ledger()
    with pytest.raises(ValueError, match="does not follow"):
        ledger.apply(2, [])
    with pytest.raises(ValueError, match="was None"):
        ledger.apply(1, [Change("nobody", "active", "rolled_back")])
