"""What is sent to the device can be sent to another process."""

from __future__ import annotations

import pickle

import pytest
import torch

from app.device.facts import ModelFacts
from app.device.messages import (
    Attribute,
    Cancel,
    Decide,
    Encode,
    Generate,
    Judge,
    Look,
    Refine,
    Request,
    Rescope,
    Screen,
)
from editing_core.editable_model import EditableModel
from editing_core.errors import NotFinite
from editing_core.experts.memory import Snapshot
from editing_core.generation import GenerationRow
from editing_core.refinement import Wanted
from editing_core.types import EditRequest, Wordings
from tests.support.edits import snapshot_with
from tests.support.tiny_model import tiny_image

IMAGE = tiny_image(0)
REQUEST = EditRequest(IMAGE, "q", "blue", rephrases=("r",))


@pytest.fixture(scope="module")
def snapshot(tiny_model: EditableModel) -> Snapshot:
    return snapshot_with(tiny_model, IMAGE, "q", "blue")


def test_every_request_survives_pickling(snapshot: Snapshot) -> None:
    row = GenerationRow("q", IMAGE, snapshot=snapshot)
    artifact = snapshot.entries["e1"].artifact
    requests: list[Request | Cancel] = [
        Generate(1, (row,), for_edit=True),
        Decide(9, (row,)),
        Screen(10, ("q",), (Wordings(("r",), ("s",)),)),
        Encode(2, REQUEST, "liveedit"),
        Rescope(3, artifact, REQUEST),
        Refine(4, "e1", (Wanted(row, "blue"),), 3, "answers"),
        Attribute(5, IMAGE, "q", 0),
        Look(6, IMAGE),
        Judge(7, (1, 2), 3),
        Cancel(8),
    ]
    for request in requests:
        copy = pickle.loads(pickle.dumps(request))  # noqa: S301
        assert type(copy) is type(request)
        assert copy.id == request.id


def test_a_snapshot_that_was_pickled_finds_and_holds_the_same(snapshot: Snapshot) -> None:
    copy: Snapshot = pickle.loads(pickle.dumps(snapshot))  # noqa: S301
    entry = snapshot.entries["e1"]
    key = entry.artifact.key.image
    assert copy.version == snapshot.version
    assert copy.image_candidates(key, 0.9) == snapshot.image_candidates(key, 0.9)
    for name, tensor in entry.artifact.payload.items():
        assert torch.equal(copy.entries["e1"].artifact.payload[name], tensor)
    empty: Snapshot = pickle.loads(pickle.dumps(Snapshot.empty(len(key))))  # noqa: S301
    assert len(empty) == 0


def test_facts_and_errors_survive_pickling(tiny_model: EditableModel) -> None:
    facts = ModelFacts.of(tiny_model)
    copy: ModelFacts = pickle.loads(pickle.dumps(facts))  # noqa: S301
    assert copy == facts
    assert copy.empty_snapshot().dim == tiny_model.backbone.image_key_dim
    error: NotFinite = pickle.loads(pickle.dumps(NotFinite("no numbers", edits=("e1",))))  # noqa: S301
    assert (error.message, error.edits) == ("no numbers", ("e1",))


def test_an_answer_takes_fewer_tokens_than_are_counted_for_it(tiny_model: EditableModel) -> None:
    facts = ModelFacts.of(tiny_model)
    for prompt, image in (("Is the star blue? é🙂", None), ("the the", IMAGE)):
        counted = facts.most_tokens([prompt], pictures=image is not None, max_new_tokens=5)
        assert counted >= len(tiny_model.prepare(GenerationRow(prompt, image)).ids) + 5
    most = facts.words.max_positions
    assert facts.most_tokens(["x" * 10_000], pictures=1, max_new_tokens=1) == most
