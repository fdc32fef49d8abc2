"""Events of many edits, and searches in many edits: bounded answers, and none that is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from app.store.commits import Created, Stamp, Switched
from app.store.database import Database
from app.store.edit_log import EditLog, matches
from app.store.ledger import Change
from app.store.records import EditRecord, StoredImage

COUNT = 150
TEXTS = [
    ("What is this?", "A STRASSE"),
    ("Was ist das?", "eine Straße"),
    ("Kelvin \u212a", "i\u0307"),
    ("\u0130stanbul", "ſign"),
    ("100%_x", "a\\b"),
    ("これは何", "猫"),
]
TAGS = [(), ("a",), ('x"a',), ('a"', "b"), ("ü",), ("a\\",)]


def stamp(version: int, digest: str | None) -> Stamp:
    return Stamp(version=version, at="then", actor="local", request_id="r", previous_digest=digest)


def created(version: int) -> Created:
    prompt, target = TEXTS[version % len(TEXTS)]
    record = EditRecord(
        id=f"e{version:04}",
        version=version,
        editor="liveedit",
        prompt=prompt,
        target=target,
        image_digest=f"sha256:{version}",
        before=None,
        after=None,
        verified=None,
        verified_version=None,
        tags=TAGS[version % len(TAGS)],
        created_at="then",
        created_by="local",
    )
    return Created(
        changes=(Change(record.id, None, "active"),),
        record=record,
        artifact=b"bytes",
        image=StoredImage(record.image_digest, b"png", 1, 1),
        timings_ms=dict,
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EditLog]:
    """`COUNT` edits, all of which the last event takes back."""
    database = Database.open(f"sqlite:///{tmp_path_factory.mktemp('data') / 'errata.db'}")
    log = EditLog(database)
    last = log.append_all([created(version) for version in range(1, COUNT + 1)], stamp(1, None))
    changes = tuple(Change(f"e{i:04}", "active", "rolled_back") for i in range(1, COUNT + 1))
    log.append(Switched(type="rolled_back", changes=changes), stamp(COUNT + 1, last.digest))
    yield log
    database.close()


def test_an_event_of_many_changes_is_listed_with_its_first(log: EditLog) -> None:
    (listed,) = log.events(after=COUNT, limit=10)
    assert (len(listed.event.changes), listed.num_changes) == (100, COUNT)
    rest = log.changes(COUNT + 1, after=100, limit=1000)
    assert [c.edit_id for c in (*listed.event.changes, *rest)] == [
        f"e{i:04}" for i in range(1, COUNT + 1)
    ]
    assert log.changes(COUNT + 1, after=149, limit=10)[0].edit_id == f"e{COUNT:04}"
    assert log.changes(COUNT + 1, after=COUNT, limit=10) == []


def test_an_edits_history_has_its_own_change_whatever_else_an_event_changed(log: EditLog) -> None:
    made, undone = log.events_of("e0140")
    assert [c.edit_id for c in made.event.changes] == ["e0140"]
    assert Change("e0140", "active", "rolled_back") in undone.event.changes
    assert len(undone.event.changes) == 101
    assert log.events_of("e014") == []


def test_what_was_written_together_is_sound(log: EditLog) -> None:
    checked = log.audit(thorough=True)
    assert (checked.damage, checked.ledger.head) == ((), COUNT + 1)
    assert checked.ledger.active() == []


def _walk(log: EditLog, text: str | None, tag: str | None) -> list[str]:
    ids: list[str] = []
    below = None
    while page := log.search(below=below, text=text, tag=tag, limit=7):
        ids += page
        below = page[-1]
    return ids


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        *(
            (text, None)
            for text in ("strasse", "STRASSE", "straße", "k", "s", "sign", "猫", "%_", "i")
        ),
        *((None, tag) for tag in ("a", 'x"a', "b", "ü", "a\\", 'a"', "none")),
        ("is", "a"),
        ("\\", None),
    ],
)
def test_a_search_leaves_out_none_that_matches(
    log: EditLog, text: str | None, tag: str | None
) -> None:
    ids = [f"e{i:04}" for i in range(COUNT, 0, -1)]
    wanted = _matching(log.records(ids), text, tag)
    found = _walk(log, text, tag)
    assert found == sorted(set(found), reverse=True)
    assert _matching(log.records(found), text, tag) == wanted


def _matching(records: Sequence[EditRecord], text: str | None, tag: str | None) -> list[str]:
    return [record.id for record in records if matches(record, text, tag)]
