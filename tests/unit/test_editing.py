"""Edits in this process, on both models: verified, superseded, refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from editing_core.editable_model import EditableModel
from editing_core.editing import EditSession
from editing_core.errors import TargetTooLong
from editing_core.heraldry.sample import draw_sample
from editing_core.types import EditRequest
from tests.support.tiny_model import tiny_image

REQUEST = EditRequest(tiny_image(0), "q", "blue")


def request(seed: int, question: int = 0, *, target: str | None = None) -> EditRequest:
    """A correction of the embedded world."""
    sample = draw_sample(seed)
    asked = sample.questions[question]
    wrong = target or asked.alternatives[0]
    return EditRequest(sample.picture.image, asked.wordings[0], wrong)


def texts(session: EditSession, *requests: EditRequest) -> list[str]:
    return [r.text for r in session.answers([(q.image, q.prompt) for q in requests])]


def test_accepted_edits_keep_their_answers_beside_each_other(
    embedded_model: EditableModel,
) -> None:
    session = EditSession(embedded_model)
    requests = [request(600 + n // 2, n % 2) for n in range(8)]
    outcomes = [session.edit(each) for each in requests]

    accepted = [r for r, o in zip(requests, outcomes, strict=True) if o.accepted]
    assert len(accepted) >= 5
    assert texts(session, *accepted) == [each.target for each in accepted]
    assert len(session.snapshot) == len(accepted)
    for asked, outcome in zip(requests, outcomes, strict=True):
        assert outcome.accepted == (outcome.reason is None)
        assert not outcome.accepted or (outcome.after, outcome.damaged) == (asked.target, ())


def test_a_contradiction_is_refused_and_changes_nothing(embedded_model: EditableModel) -> None:
    session = EditSession(embedded_model)
    first = request(610)
    made = session.edit(first)
    assert made.accepted
    pixels = first.image.copy()
    pixels[0, 0, 0] ^= 1
    rival = replace(first, image=pixels, target="quite another")
    before = session.snapshot

    refused = session.edit(rival)
    assert (refused.accepted, refused.reason) == (False, "edit_conflicts")
    assert session.snapshot is before

    assert session.edit(rival, supersedes=[made.edit_id]).accepted
    assert made.edit_id not in session.snapshot.entries
    assert texts(session, rival) == ["quite another"]


@pytest.mark.parametrize("verify", ["strict", "off"])
def test_the_newest_of_a_slot_replaces_the_older(
    embedded_model: EditableModel, verify: str
) -> None:
    session = EditSession(embedded_model, verify=verify)  # type: ignore[arg-type]
    first = request(611)
    second = replace(first, prompt=f"  {first.prompt} ", target="quite another")
    outcomes = [session.edit(first), session.edit(second)]

    assert [o.accepted for o in outcomes] == [True, True]
    assert list(session.snapshot.entries) == [outcomes[1].edit_id]
    assert texts(session, first) == ["quite another"]


def test_the_base_model_can_be_asked_too(embedded_model: EditableModel) -> None:
    session, first = EditSession(embedded_model), request(612)
    (before,) = texts(session, first)
    outcome = session.edit(first)
    (unedited,) = session.answers([(first.image, first.prompt)], edits=False)

    assert outcome.before == before == unedited.text
    assert texts(session, first) == [first.target]
    assert session.answers([]) == []
    assert len(session.answers([(None, "Hello?")] * 40)) == 40


@pytest.mark.parametrize("editor", ["liveedit", "liveedit-paper", "visedit"])
def test_random_weights_are_reported_refused_or_not_asked(
    tiny_model: EditableModel, editor: str
) -> None:
    """The tiny model's edits act on every question of their picture, so they all do damage."""
    strict = EditSession(tiny_model, editor=editor, max_steps=2)
    refused = strict.edit(REQUEST)
    assert (refused.accepted, refused.reason) == (False, "edit_not_effective")
    assert len(strict.snapshot) == 0

    report = EditSession(tiny_model, editor=editor, verify="report", max_steps=2)
    reported = report.edit(REQUEST)
    assert (reported.accepted, reported.reason) == (True, None)
    assert reported.refinement_steps in range(3)
    assert reported.damaged or reported.after != REQUEST.target
    assert texts(report, REQUEST) == [reported.after]
    for damage in reported.damaged:
        assert texts(report, replace(REQUEST, prompt=damage.prompt)) == [damage.after]

    off = EditSession(tiny_model, editor=editor, verify="off")
    unchecked = off.edit(REQUEST)
    assert (unchecked.accepted, unchecked.before, unchecked.after) == (True, None, None)


def test_an_edit_that_takes_no_part_anywhere_cannot_take(tiny_model: EditableModel) -> None:
    router = tiny_model.router.with_thresholds(rho=2.0)
    deaf = EditableModel(tiny_model.backbone, router, tiny_model.editors)
    outcome = EditSession(deaf).edit(REQUEST)

    assert (outcome.accepted, outcome.reason) == (False, "edit_not_effective")
    assert outcome.before == outcome.after
    assert outcome.refinement_steps == 0


def test_what_no_edit_may_be_is_raised(tiny_model: EditableModel) -> None:
    with pytest.raises(TargetTooLong):
        EditSession(tiny_model).edit(replace(REQUEST, target="x" * 64))
