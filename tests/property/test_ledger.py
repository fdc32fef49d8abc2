"""The event log against a model of a dozen lines, with restarts, on a real database."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.store.commits import (
    Commit,
    Created,
    Reencoded,
    Rescoped,
    Restored,
    ScopeChanged,
    Stamp,
    Switched,
)
from app.store.database import Database
from app.store.edit_log import EditLog
from app.store.ledger import Change, Ledger, LedgerEdit
from app.store.records import (
    EditRecord,
    MadeBy,
    Reencoding,
    Rescoping,
    StoredImage,
    digest_of,
)
from tests.support.server import png
from tests.support.steps import steps
from tests.support.tiny_model import tiny_image

IMAGES = [StoredImage(f"sha256:{n}", png(tiny_image(n)), 48, 48) for n in range(2)]
PROMPTS = ["one", "two"]
WEIGHTS = MadeBy(
    editor="liveedit", editor_fingerprint="e", backbone_fingerprint="b", router_fingerprint="r"
)


@dataclass
class Simple:
    """An edit in the model: a list of these is all there is.

    `made` is the version whose artifact counts, `words` are its rephrases.
    """

    id: str
    slot: tuple[str, str]
    names: tuple[str, ...]
    rolled_back: bool = False
    made: int = 0
    words: tuple[str, ...] = ()


def artifact_of(edit_id: str, version: int) -> bytes:
    return f"{edit_id} by {version}".encode()


def rescoped(edit_id: str, version: int, words: tuple[str, ...], after: str | None) -> Rescoped:
    artifact = artifact_of(edit_id, version)
    rescoping = Rescoping(
        edit_id=edit_id,
        rephrases=words,
        not_for=(),
        artifact_digest=digest_of(artifact),
        before=None,
        after=after,
        verified=None,
        verified_version=None,
        damaged=(),
        refinement_steps=0,
    )
    return Rescoped(rescoping, artifact)


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
        self.words: list[dict[str, tuple[str, ...]]] = [{}]
        self._open()

    def _open(self) -> None:
        self.database = Database.open(self._url)
        self.log = EditLog(self.database)
        checked = self.log.audit(thorough=True)
        assert checked.damage == ()
        self.ledger, self.last = checked.ledger, checked.last

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
        self.ledger.apply(
            stamp.version,
            commit.changes,
            created=commit.record.place if isinstance(commit, Created) else None,
            remade=self.last.reencoding.edit_id if self.last.reencoding else None,
            scopes={each.edit_id: each.scope for each in self.last.scopes},
        )
        self.versions.append(self._expected())
        self.words.append({edit.id: edit.words for edit in self.model})

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
        version = record.version
        self.model.append(Simple(record.id, (image.digest, prompt), named, made=version))
        self._write(
            Created(
                changes=tuple(changes),
                record=record,
                artifact=artifact_of(record.id, version),
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
        changes = {c.edit_id: c for c in self.ledger.plan_restore(version)}
        head, widened, words = self.ledger.head + 1, [], self.words[version]
        for edit in self.model:
            edit.rolled_back = then.get(edit.id, "rolled_back") == "rolled_back"
            if words.get(edit.id, edit.words) != edit.words:
                edit.made, edit.words = head, words[edit.id]
                widened.append(rescoped(edit.id, head, edit.words, f"by {head}"))
                changes.setdefault(edit.id, *self.ledger.plan_scope(edit.id))
        then_scopes = {i: s.rephrases for i, s in self.ledger.rescoped_since(version).items()}
        assert then_scopes == {r.rescoping.edit_id: r.rescoping.rephrases for r in widened}
        assert bool(changes) == (self._expected() != self.versions[-1] or bool(widened))
        if changes:
            self._write(
                Restored(
                    changes=tuple(changes.values()),
                    from_version=version,
                    rescoped=tuple(widened),
                )
            )
        assert {i: s for i, s in self.versions[-1].items() if i in then} == then

    @precondition(lambda self: self.model)
    @rule(which=st.integers(0, 50), word=st.sampled_from(["a", "b", "c"]))
    def change_scope(self, which: int, word: str) -> None:
        edit, version = self.model[which % len(self.model)], self.ledger.head + 1
        edit.words = tuple(w for w in edit.words if w != word) or (word,)
        edit.made = version
        self._write(
            ScopeChanged(
                changes=tuple(self.ledger.plan_scope(edit.id)),
                rescoped=(rescoped(edit.id, version, edit.words, f"by {version}"),),
            )
        )

    @precondition(lambda self: self.model)
    @rule(which=st.integers(0, 50))
    def reencode(self, which: int) -> None:
        edit = self.model[which % len(self.model)]
        edit_id, version = edit.id, self.ledger.head + 1
        edit.made = version
        made_anew = Reencoding(
            edit_id=edit_id,
            artifact_digest=digest_of(artifact_of(edit_id, version)),
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
        artifact = artifact_of(edit_id, version)
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
        found = {stored.record.id: stored for stored in self.log.artifacts(self.ledger.ids())}
        for edit in self.model:
            assert found[edit.id].check() == artifact_of(edit.id, edit.made)
            assert self.ledger.revision(edit.id) == edit.made
            record = self.log.record(edit.id)
            assert record is not None
            is_new = edit.made == self.ledger[edit.id].version
            assert record.after == (None if is_new else f"by {edit.made}")
            assert record.rephrases == self.ledger.scope(edit.id).rephrases == edit.words

    @invariant()
    def every_scope_can_still_be_told(self) -> None:
        for version, then in enumerate(self.words):
            for edit_id, words in then.items():
                assert self.ledger.scope(edit_id, version).rephrases == words
                stored = self.log.artifact(edit_id, at=version)
                counts = self.ledger.revision(edit_id, version)
                assert stored.check() == artifact_of(edit_id, counts)

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


def test_the_two_thousandth_edit_of_one_slot_takes_no_more_steps_than_the_tenth() -> None:
    ledger, taken = Ledger(), []
    for version in range(1, 2002):
        edit = LedgerEdit(f"edit{version:04}", version, ("sha256:0", "one"))

        def commit(edit: LedgerEdit = edit, version: int = version) -> None:
            ledger.apply(version, ledger.plan_create(edit), created=edit)

        taken.append(steps(commit))
    assert taken[2000] == taken[9]
    undo = [steps(partial(ledger.plan_roll_back, f"edit{v:04}")) for v in (2001, 10)]
    assert max(undo) < 100
    assert steps(partial(ledger.plan_restore, 1)) < 100 * 2001
