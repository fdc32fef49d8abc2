"""The router of frozen features: what its keys are made of, and what its thresholds do to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing_core.errors import CheckpointCorrupt, FingerprintMismatch
from editing_core.experts.codec import decode_artifact, encode_artifact
from editing_core.routing.base import load_router
from editing_core.routing.frozen_features import FrozenRouter
from editing_core.routing.router import Router, RouterConfig
from editing_core.states import RoutingStates
from editing_core.types import EditArtifact
from tests.support.edits import artifact, unit_vector

HIDDEN, GROUPS, WORDINGS = 24, 10, 4
PICTURE = torch.ones(3, HIDDEN)


def said(question: int, wording: int, *, seed: int = 0) -> Tensor:
    """Words of a question: what it means, how it is put, and much that all of them share."""
    meanings = torch.randn(50, HIDDEN, generator=torch.Generator().manual_seed(1))
    manners = torch.randn(WORDINGS, HIDDEN, generator=torch.Generator().manual_seed(2))
    noise = torch.Generator().manual_seed(100 * question + wording + 10_000 * seed)
    shared = 8.0 * torch.ones(HIDDEN)
    row = shared + meanings[question] + 3.0 * manners[wording]
    return row + 0.05 * torch.randn(5, HIDDEN, generator=noise)


def router(seed: int = 0) -> FrozenRouter:
    groups = [[said(q, w, seed=seed) for w in range(WORDINGS)] for q in range(GROUPS)]
    made = FrozenRouter.measure(
        groups, layer=1, image_key_model="clip", backbone_fingerprint="sha256:b"
    )
    return made.with_thresholds(tau=0.5, rho=0.5, slope=20.0, bias=-10.0, alpha=10.0, beta=0.0)


@dataclass(frozen=True)
class Entry:
    artifact: EditArtifact
    target: str = ""


class Memory:
    """A snapshot with exhaustive search; edit `q3` asks question 3 on the picture of `axis`."""

    def __init__(self, chosen: FrozenRouter, *questions: int, rephrases: int = 0) -> None:
        self.entries = {}
        for q in questions:
            states = RoutingStates(PICTURE, said(q, 0))
            others = [said(q, w) for w in range(1, 1 + rephrases)]
            key = chosen.keys(states, unit_vector(0), rephrases=others)
            self.entries[f"q{q}"] = Entry(replace(artifact(unit_vector(0)), key=key))

    def image_candidates(
        self, image_key: NDArray[np.float32], tau: float
    ) -> list[tuple[str, float]]:
        cosines = {n: float(e.artifact.key.image @ image_key) for n, e in self.entries.items()}
        return [(name, cosine) for name, cosine in cosines.items() if cosine >= tau]


def test_keys_are_deterministic_and_of_length_one() -> None:
    one, two = router(), router()

    first, second = (r.keys(RoutingStates(PICTURE, said(3, 1)), unit_vector(1)) for r in (one, two))

    assert one.fingerprint == two.fingerprint
    assert np.array_equal(first.text, second.text)
    assert first.text.shape == (1, HIDDEN)
    assert first.visual.size == 0
    np.testing.assert_allclose(np.linalg.norm(first.text), 1.0, rtol=1e-5)


def test_what_all_share_and_how_it_is_put_count_for_nothing() -> None:
    """Raw means say that everything is alike; questions never measured are told apart too."""
    chosen = router()
    unseen = range(GROUPS, GROUPS + 8)
    raw = [torch.nn.functional.normalize(said(q, q % 2).mean(0), dim=0) for q in unseen]
    same = [float(chosen.text_key(said(q, 0)) @ chosen.text_key(said(q, 1))) for q in unseen]
    apart = [
        float(chosen.text_key(said(q, 0)) @ chosen.text_key(said(p, 0)))
        for q in unseen
        for p in unseen
        if p != q
    ]

    assert float(raw[0] @ raw[1]) > 0.8
    assert min(same) > 0.85
    assert max(apart) < min(same)


def test_a_row_a_thousand_times_longer_than_the_rest_does_not_decide() -> None:
    chosen = router()
    words = said(3, 0)
    loud = torch.cat([1000.0 * said(5, 0)[:1], words])

    assert float(chosen.text_key(loud) @ chosen.text_key(words)) > 0.7


def test_survivors_share_one_softmax_and_other_questions_are_named() -> None:
    chosen = router()
    memory = Memory(chosen, 1, 2)
    query = RoutingStates(PICTURE, said(1, 2))

    decision = chosen.route(query, [("q1", 0.9), ("q2", 0.9)], memory)
    open_ = chosen.with_thresholds(rho=0.0).route(query, [("q1", 0.9), ("q2", 0.9)], memory)

    assert [(c.edit_id, c.outcome) for c in decision.candidates] == [
        ("q1", "applied"),
        ("q2", "below_text_gate"),
    ]
    assert decision.candidates[0].weight == pytest.approx(1.0)
    assert len(open_.applied) == 2
    assert sum(c.weight for c in open_.applied) == pytest.approx(1.0)
    assert open_.applied[0].weight > open_.applied[1].weight


def test_of_two_pictures_the_nearer_one_weighs_more() -> None:
    chosen = router()
    memory = Memory(chosen, 1)
    memory.entries["twin"] = memory.entries["q1"]

    decision = chosen.route(
        RoutingStates(PICTURE, said(1, 0)), [("q1", 0.95), ("twin", 0.75)], memory
    )

    near, far = decision.applied
    assert near.edit_id == "q1"
    assert near.weight / far.weight == pytest.approx(np.exp(10.0 * 0.2), rel=1e-3)


def test_nothing_fires_without_a_picture_or_without_survivors() -> None:
    chosen = router()
    memory = Memory(chosen, 1)

    text_only = RoutingStates(PICTURE[:0], said(1, 0))
    assert chosen.route(text_only, [("q1", 0.9)], memory).candidates == ()
    assert chosen.route(RoutingStates(PICTURE, said(1, 0)), [], memory).candidates == ()


def test_an_edit_is_found_by_the_best_of_its_wordings() -> None:
    chosen = router()
    query = RoutingStates(PICTURE, said(20, 3))
    alone, many = Memory(chosen, 20), Memory(chosen, 20, rephrases=3)

    scores = [
        chosen.scores(query, [m.entries["q20"].artifact.key], torch.tensor([0.9])).text
        for m in (alone, many)
    ]

    assert many.entries["q20"].artifact.key.text.shape == (4, HIDDEN)
    assert float(scores[1]) > float(scores[0])


def test_an_artifact_with_its_keys_survives_storage() -> None:
    made = Memory(router(), 4, rephrases=2).entries["q4"].artifact

    stored = decode_artifact(encode_artifact(made))

    assert np.array_equal(stored.key.text, made.key.text)
    assert stored.key.visual.shape == (0, 0)


def test_recalibrating_keeps_the_fingerprint_and_measuring_otherwise_changes_it() -> None:
    chosen = router()

    assert chosen.with_figures({"x": 1.0}, tau=0.9, slope=3.0).fingerprint == chosen.fingerprint
    assert router(seed=1).fingerprint != chosen.fingerprint


def test_a_checkpoint_holds_a_router_of_either_kind(tmp_path: Path) -> None:
    files = tmp_path / "router.safetensors", tmp_path / "router.json"
    frozen = router().with_figures({"false_fire_rate": 0.25})
    frozen.save(*files)

    loaded = load_router(*files)

    assert isinstance(loaded, FrozenRouter)
    assert loaded.fingerprint == frozen.fingerprint
    assert loaded.thresholds == frozen.thresholds
    assert loaded.false_fire_rate == 0.25
    assert torch.equal(loaded.text_key(said(2, 2)), frozen.text_key(said(2, 2)))
    with pytest.raises(CheckpointCorrupt, match="does not describe a router"):
        Router.load(*files)

    Router(RouterConfig(8, layer=1, num_patches=2, width=8, heads=2)).save(*files)
    assert isinstance(load_router(*files), Router)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    files = tmp_path / "router.safetensors", tmp_path / "router.json"
    router().save(*files)
    text = files[1].read_text()

    files[1].write_text(text.replace('"frozen_features"', '"telepathy"'))
    with pytest.raises(CheckpointCorrupt, match="telepathy"):
        load_router(*files)
    files[1].write_text(text.replace('"layer": 1', '"layer": 0'))
    with pytest.raises(FingerprintMismatch):
        load_router(*files)
