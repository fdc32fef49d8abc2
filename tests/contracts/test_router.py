"""What every router must do, trained or not; each registered kind is put through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from editing_core.errors import CheckpointMissing
from editing_core.experts.codec import decode_artifact, encode_artifact
from editing_core.registry import ROUTERS
from editing_core.routing.base import RouterBase, load_router
from editing_core.routing.frozen_features import FrozenRouter
from editing_core.routing.router import Router, RouterConfig
from editing_core.states import RoutingStates
from editing_core.types import EditArtifact
from tests.support.edits import artifact, unit_vector

HIDDEN, PATCHES = 16, 4


def row(seed: int, *, with_image: bool = True) -> RoutingStates:
    random = torch.Generator().manual_seed(seed)
    image = torch.randn(PATCHES if with_image else 0, HIDDEN, generator=random)
    return RoutingStates(image, torch.randn(3, HIDDEN, generator=random))


def _trained() -> RouterBase:
    torch.manual_seed(0)
    shape = RouterConfig(HIDDEN, layer=1, num_patches=PATCHES, width=16, heads=4)
    return Router(shape).requires_grad_(False).eval()


def _frozen() -> RouterBase:
    groups = [[row(10 * q + w).words for w in range(3)] for q in range(6)]
    return FrozenRouter.measure(groups, layer=1, image_key_model="clip", backbone_fingerprint="")


MAKERS: dict[str, Callable[[], RouterBase]] = {"router": _trained, "frozen_features": _frozen}


@pytest.fixture(params=sorted(ROUTERS))
def router(request: pytest.FixtureRequest) -> RouterBase:
    """One that lets everything through."""
    return MAKERS[request.param]().with_thresholds(tau=0.0, rho=0.0, margin=-100.0)


@dataclass(frozen=True)
class Entry:
    artifact: EditArtifact
    target: str = ""


class Memory:
    """A snapshot with exhaustive search; edit `i` asks row i's words."""

    def __init__(self, chosen: RouterBase, *seeds: int) -> None:
        self.entries = {}
        for seed in seeds:
            image = unit_vector(seed)
            key = chosen.keys(row(seed), image, rephrases=[row(seed + 50).words])
            self.entries[str(seed)] = Entry(replace(artifact(image), key=key))

    def image_candidates(
        self, image_key: NDArray[np.float32], tau: float
    ) -> list[tuple[str, float]]:
        cosines = {n: float(e.artifact.key.image @ image_key) for n, e in self.entries.items()}
        return [(name, cosine) for name, cosine in cosines.items() if cosine >= tau]


def test_keys_are_pure_and_can_be_stored(router: RouterBase) -> None:
    first, second = (Memory(router, 1).entries["1"].artifact for _ in range(2))

    assert encode_artifact(first) == encode_artifact(second)
    stored = decode_artifact(encode_artifact(first)).key
    assert np.array_equal(stored.text, first.key.text)
    assert np.array_equal(stored.visual, first.key.visual)
    assert np.array_equal(stored.image, unit_vector(1))


def test_the_hard_filter_misses_nothing_at_tau(router: RouterBase) -> None:
    memory = Memory(router, 1, 2)
    key = unit_vector(1)

    assert {name for name, _ in router.with_thresholds(tau=-1.0).hard_filter(key, memory)} == {
        "1",
        "2",
    }
    assert [n for n, _ in router.with_thresholds(tau=0.999).hard_filter(key, memory)] == ["1"]


def test_those_that_act_share_one_and_come_highest_first(router: RouterBase) -> None:
    memory = Memory(router, 1, 2, 3)

    decision = router.route(row(1), [("2", 0.8), ("3", 0.8), ("1", 0.8)], memory)

    weights = [candidate.weight for candidate in decision.applied]
    assert decision.applied[0].edit_id == "1"
    assert len(weights) == 3
    assert weights == sorted(weights, reverse=True)
    assert sum(weights) == pytest.approx(1.0)


def test_what_is_below_the_gate_is_named_and_weighs_nothing(router: RouterBase) -> None:
    memory = Memory(router, 1, 2)
    survivors = [("1", 0.9), ("2", 0.9)]
    gates = [c.text_similarity for c in router.route(row(1), survivors, memory).candidates]

    strict = router.with_thresholds(rho=sum(gates) / 2).route(row(1), survivors, memory)

    assert [c.outcome for c in strict.candidates] == ["applied", "below_text_gate"]
    assert [c.weight for c in strict.candidates] == [pytest.approx(1.0), 0.0]


def test_text_alone_fires_nothing(router: RouterBase) -> None:
    memory = Memory(router, 1)

    assert router.route(row(1, with_image=False), [("1", 0.9)], memory).candidates == ()
    assert router.route(row(1), [], memory).candidates == ()


def test_recalibrating_makes_no_edit_stale(router: RouterBase) -> None:
    changed = router.with_figures({"false_fire_rate": 0.5}, tau=0.9, rho=0.4, alpha=5.0)

    assert changed.fingerprint == router.fingerprint
    assert (changed.tau, changed.rho, changed.false_fire_rate) == (0.9, 0.4, 0.5)
    assert np.array_equal(
        changed.keys(row(1), unit_vector(1)).text, router.keys(row(1), unit_vector(1)).text
    )


def test_what_is_saved_is_what_is_loaded(router: RouterBase, tmp_path: Path) -> None:
    files = tmp_path / "router.safetensors", tmp_path / "router.json"
    router.save(*files)

    first = load_router(*files)
    first.save(*files)
    again = load_router(*files)

    assert type(again) is type(router)
    assert again.fingerprint == router.fingerprint
    assert again.thresholds == router.thresholds
    assert np.array_equal(
        again.keys(row(1), unit_vector(1)).text, first.keys(row(1), unit_vector(1)).text
    )
    files[0].unlink()
    with pytest.raises(CheckpointMissing, match=r"router\.safetensors"):
        load_router(*files)
