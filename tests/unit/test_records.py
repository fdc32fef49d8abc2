"""Events as values: what their digests cover, and that older ones keep theirs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.schemas.events import EventView
from app.store.ledger import Change
from app.store.records import Event, MadeBy, Reencoding

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


def test_digests_of_the_first_release_still_hold() -> None:
    """A chain written before there was a `reencoding` is not broken by it."""
    assert (
        CREATED.digest == "sha256:fca7baf93da504a12c629f181dd32899dff4cb72039a2cd2073525ad8dbfa039"
    )


@pytest.mark.parametrize("event", [CREATED, REENCODED], ids=lambda event: event.type)
def test_an_event_survives_its_row(event: Event) -> None:
    assert Event.from_row(event.row()) == event


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


def test_a_row_that_names_two_edits_is_refused() -> None:
    for column, value in (("reencoded_edit", "e2"), ("reencoded_edit", None)):
        with pytest.raises(ValueError, match="it made e1 anew"):
            Event.from_row(REENCODED.row() | {column: value})


def test_only_an_event_that_made_something_anew_shows_it() -> None:
    assert "reencoding" not in EventView.of(CREATED).model_dump(by_alias=True)
    shown = EventView.of(REENCODED).model_dump(by_alias=True)["reencoding"]
    assert (shown["from"]["editor"], shown["to"]["editor"]) == ("visedit", "liveedit")
