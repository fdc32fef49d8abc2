"""Events as values: what their digests cover, and that older ones keep theirs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.schemas.events import EventView
from app.store.ledger import Change
from app.store.records import (
    EditRecord,
    Event,
    ListedEvent,
    MadeBy,
    Reencoding,
    Rescoping,
    digest_of,
    num_changes_of,
)
from app.strict_json import canonical

CREATED = Event(
    version=1,
    type="edit_created",
    at="2026-01-01T00:00:00.000Z",
    actor="local",
    request_id="r",
    changes=(Change("e1", None, "active"),),
    record_digest="sha256:1",
)
OLD = MadeBy(
    editor="visedit",
    editor_fingerprint="sha256:v",
    backbone_fingerprint="sha256:b",
    router_fingerprint="sha256:r",
)
REENCODED = replace(
    CREATED,
    version=2,
    type="reencoded",
    changes=(Change("e1", "stale", "active"),),
    record_digest=None,
    previous_digest=CREATED.digest,
    reencoding=Reencoding(
        edit_id="e1",
        artifact_digest="sha256:a",
        old=OLD,
        new=replace(OLD, editor="liveedit", editor_fingerprint="sha256:l"),
        before="red",
        after="blue",
        verified=False,
        verified_version=1,
        damaged=({"prompt": "q", "before": "x", "after": "y"},),
        refinement_steps=3,
    ),
)


SCOPED = replace(
    REENCODED,
    type="scope_changed",
    changes=(Change("e1", "active", "active"),),
    reencoding=None,
    scopes=(
        Rescoping(
            edit_id="e1",
            rephrases=("one",),
            not_for=("two", "three"),
            artifact_digest="sha256:a",
            before="red",
            after="blue",
            verified=True,
            verified_version=1,
            damaged=(),
            refinement_steps=0,
        ),
    ),
)
RECORD = EditRecord(
    id="e1",
    version=1,
    editor="liveedit",
    prompt="q",
    target="t",
    image_digest="sha256:i",
    before=None,
    after=None,
    verified=None,
    verified_version=None,
    created_at="2026-01-01T00:00:00.000Z",
    created_by="local",
)


def test_digests_of_the_first_release_still_hold() -> None:
    """A chain written before there was a `reencoding` is not broken by it."""
    assert (
        CREATED.digest == "sha256:fca7baf93da504a12c629f181dd32899dff4cb72039a2cd2073525ad8dbfa039"
    )


@pytest.mark.parametrize("event", [CREATED, REENCODED, SCOPED], ids=lambda event: event.type)
def test_an_event_survives_its_row(event: Event) -> None:
    changes = [Change(r["edit_id"], r["before"], r["after"]) for r in event.change_rows()]
    assert Event.from_row(event.row(), changes) == event
    assert num_changes_of(event.row()) == len(changes)


@pytest.mark.parametrize(
    "change",
    [
        {"artifact_digest": "sha256:other"},
        {"after": "green"},
        {"old": replace(OLD, router_fingerprint="sha256:other")},
        {"refinement_steps": 4},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_digest_covers_what_was_made_anew(change: dict[str, Any]) -> None:
    assert REENCODED.reencoding is not None
    other = replace(REENCODED, reencoding=replace(REENCODED.reencoding, **change))
    assert other.digest != REENCODED.digest


@pytest.mark.parametrize(
    "change",
    [{"artifact_digest": "x"}, {"rephrases": ()}, {"not_for": ("two",)}, {"edit_id": "e2"}],
    ids=lambda change: next(iter(change)),
)
def test_the_digest_covers_scopes(change: dict[str, Any]) -> None:
    other = replace(SCOPED, scopes=(replace(SCOPED.scopes[0], **change),))
    assert other.digest != SCOPED.digest


def test_a_record_without_not_for_keeps_the_digest_it_had() -> None:
    row = RECORD.row() | {"artifact_digest": "sha256:a"}
    old = {name: row[name] for name in row if name not in ("not_for", "timings_ms")}
    assert RECORD.digest("sha256:a") == digest_of(canonical(old))
    assert replace(RECORD, not_for=("x",)).digest("sha256:a") != RECORD.digest("sha256:a")


def test_a_row_that_names_two_edits_is_refused() -> None:
    for column, value in (("reencoded_edit", "e2"), ("reencoded_edit", None)):
        with pytest.raises(ValueError, match="it made e1 anew"):
            Event.from_row(REENCODED.row() | {column: value}, REENCODED.changes)


def shown(event: Event) -> EventView:
    return EventView.of(ListedEvent(event, len(event.changes), event.digest))


def test_only_an_event_that_made_something_anew_shows_it() -> None:
    assert not {"reencoding", "scopes"} & set(shown(CREATED).model_dump(by_alias=True))
    assert shown(SCOPED).model_dump()["scopes"] == [SCOPED.scopes[0].wire()]
    told = shown(REENCODED).model_dump(by_alias=True)["reencoding"]
    assert (told["from"]["editor"], told["to"]["editor"]) == ("visedit", "liveedit")
