"""The router: who passes its three tests, and what the survivors weigh."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from editing_core.errors import CheckpointCorrupt, FingerprintMismatch
from editing_core.routing.router import Router, RouterConfig, Thresholds
from editing_core.routing.scores import survivor_weights
from editing_core.states import RoutingStates
from editing_core.types import EditArtifact
from tests.support.edits import artifact, unit_vector

HIDDEN, PATCHES = 16, 4
OPEN = Thresholds(tau=0.0, rho=0.0, margin=-100.0)


def router(thresholds: Thresholds = OPEN) -> Router:
    torch.manual_seed(0)
    config = RouterConfig(HIDDEN, layer=1, num_patches=PATCHES, width=16, heads=4)
    return Router(config, thresholds=thresholds).requires_grad_(False).eval()


def row(seed: int, *, words: int = 3, with_image: bool = True) -> RoutingStates:
    random = torch.Generator().manual_seed(seed)
    patches = PATCHES if with_image else 0
    image, said = (torch.randn(n, HIDDEN, generator=random) for n in (patches, words))
    return RoutingStates(image, said)


@dataclass(frozen=True)
class Entry:
    artifact: EditArtifact
    target: str = ""


class Memory:
    """A snapshot with exhaustive search."""

    def __init__(self, chosen: Router, **rows: RoutingStates) -> None:
        self.entries = {
            name: Entry(_filed(chosen, states, unit_vector(i)))
            for i, (name, states) in enumerate(rows.items())
        }

    def image_candidates(
        self, image_key: NDArray[np.float32], tau: float
    ) -> list[tuple[str, float]]:
        cosines = {n: float(e.artifact.key.image @ image_key) for n, e in self.entries.items()}
        return [(name, cosine) for name, cosine in cosines.items() if cosine >= tau]


def _filed(chosen: Router, states: RoutingStates, image_key: NDArray[np.float32]) -> EditArtifact:
    made = artifact(image_key)
    return EditArtifact(
        **{
            **{name: getattr(made, name) for name in EditArtifact.__dataclass_fields__},
            "key": chosen.keys(states, image_key),
        }
    )


def test_a_textual_key_is_of_the_words_whatever_the_picture() -> None:
    chosen, states = router(), row(1)
    image = unit_vector(1)

    first = chosen.keys(states, image)
    second = chosen.keys(RoutingStates(row(2).image, states.words), image)

    assert np.array_equal(first.text, second.text)
    assert not np.array_equal(first.visual, second.visual)
    assert first.text.shape == (4, 16)
    assert first.visual.shape == (8, 16)
    np.testing.assert_allclose(np.linalg.norm(first.text), 1.0, rtol=1e-5)


def test_equal_words_match_before_anything_is_learned() -> None:
    chosen = router()
    memory = Memory(chosen, same=row(1), other=row(2))

    decision = chosen.route(row(1), [("same", 0.9), ("other", 0.9)], memory)

    assert [c.edit_id for c in decision.candidates] == ["same", "other"]
    assert decision.candidates[0].text_similarity > decision.candidates[1].text_similarity


def test_weights_of_the_applied_sum_to_one_and_come_highest_first() -> None:
    chosen = router()
    memory = Memory(chosen, a=row(1), b=row(2), c=row(3))

    decision = chosen.route(row(1), [("c", 0.5), ("b", 0.6), ("a", 0.7)], memory)

    weights = [candidate.weight for candidate in decision.applied]
    assert len(weights) == 3
    assert weights == sorted(weights, reverse=True)
    assert sum(weights) == pytest.approx(1.0)


def test_an_edit_below_the_text_gate_is_named_and_weighs_nothing() -> None:
    chosen = router()
    memory = Memory(chosen, same=row(1), other=row(2))
    survivors = [("same", 0.9), ("other", 0.9)]
    gates = [c.text_similarity for c in chosen.route(row(1), survivors, memory).candidates]

    strict = chosen.with_thresholds(rho=(gates[0] + gates[1]) / 2)
    decision = strict.route(row(1), survivors, memory)

    assert [(c.edit_id, c.outcome) for c in decision.candidates] == [
        ("same", "applied"),
        ("other", "below_text_gate"),
    ]
    assert [c.weight for c in decision.candidates] == [1.0, 0.0]


def test_the_sentinel_must_be_beaten_strictly() -> None:
    """At a margin equal to the score itself the edit does not pass; just below, it does."""
    chosen = router()
    memory = Memory(chosen, e=row(1))
    features = chosen.query_features(row(2))
    key = torch.from_numpy(memory.entries["e"].artifact.key.visual)
    cosines = (key * features.visual).sum(-1)
    score = chosen.scales.visual(cosines[None], features.sentinel, torch.tensor([0.9]))

    at = chosen.with_thresholds(margin=float(score)).route(row(2), [("e", 0.9)], memory)
    below = chosen.with_thresholds(margin=float(score) - 1e-3).route(row(2), [("e", 0.9)], memory)

    assert at.candidates[0].outcome == "below_sentinel"
    assert at.applied == ()
    assert below.candidates[0].outcome == "applied"


def test_an_edit_that_is_the_sentinel_looks_exactly_like_it() -> None:
    chosen = router()
    fake = RoutingStates(chosen.sentinel.states, row(1).words)
    memory = Memory(chosen, fake=fake)

    features = chosen.query_features(row(1))

    key = torch.from_numpy(memory.entries["fake"].artifact.key.visual)
    torch.testing.assert_close((key * features.visual).sum(-1), features.sentinel)


def test_one_slot_that_disagrees_is_enough() -> None:
    """A look-alike differs in one thing; agreement everywhere else must not outvote it."""
    scales = router().scales
    sentinel, image = torch.full((8,), 0.5), scales.image_centre.detach()
    same = torch.full((8,), 0.9)
    other = same.clone()
    other[3] = 0.1

    assert float(scales.visual(same, sentinel, image)) > 0
    assert float(scales.visual(other, sentinel, image)) < 0
    assert float(other.mean()) > float(sentinel.mean())


def test_nothing_fires_without_an_image_or_without_survivors() -> None:
    chosen = router()
    memory = Memory(chosen, e=row(1))

    assert chosen.route(row(1), [], memory).candidates == ()
    assert chosen.route(row(1, with_image=False), [("e", 0.9)], memory).candidates == ()


def test_the_hard_filter_is_a_range_search_at_tau() -> None:
    chosen = router()
    memory = Memory(chosen, a=row(1), b=row(2))
    own = memory.entries["b"].artifact.key.image

    found = chosen.with_thresholds(tau=0.99).hard_filter(own, memory)
    everything = chosen.with_thresholds(tau=-1.0).hard_filter(own, memory)

    assert [name for name, _ in found] == ["b"]
    assert {name for name, _ in everything} == {"a", "b"}


def test_the_papers_rule_drops_nothing_by_text_and_shrinks_by_the_gate() -> None:
    chosen = router().with_thresholds(rule="paper", rho=0.999)
    memory = Memory(chosen, a=row(1), b=row(2))

    decision = chosen.route(row(3), [("a", 0.9), ("b", 0.9)], memory)

    gates = torch.tensor([c.text_similarity for c in decision.candidates])
    scores = gates.logit()
    expected = (scores.sigmoid() * scores.softmax(0)).tolist()
    assert [c.outcome for c in decision.candidates] == ["applied", "applied"]
    assert [c.weight for c in decision.candidates] == pytest.approx(expected, rel=1e-3)


def test_only_the_picture_tells_look_alikes_apart() -> None:
    text, visual = torch.tensor([2.0, 2.0]), torch.tensor([3.0, 1.0])
    image = torch.tensor([0.95, 0.90])

    blind = survivor_weights(text, visual, image, rule="joint", alpha=0.0, beta=0.0, tau=0.8)
    seeing = survivor_weights(text, visual, image, rule="joint", alpha=10.0, beta=1.0, tau=0.8)

    assert blind.tolist() == [0.5, 0.5]
    torch.testing.assert_close(seeing, torch.tensor([2.5, 0.0]).softmax(0))


def test_thresholds_are_no_part_of_the_fingerprint() -> None:
    chosen = router()

    assert chosen.with_thresholds(tau=0.5, rho=0.9).fingerprint == chosen.fingerprint
    torch.manual_seed(1)
    assert Router(chosen.config).fingerprint != chosen.fingerprint


def test_saved_and_loaded_it_routes_the_same(tmp_path: Path) -> None:
    first = router(Thresholds(tau=0.3, rho=0.1, margin=-100.0, alpha=5.0))
    first.figures["false_fire_rate"] = 0.25
    files = tmp_path / "router.safetensors", tmp_path / "router.json"
    first.save(*files)

    loaded = Router.load(*files)
    loaded.save(*files)
    again = Router.load(*files)

    assert loaded.thresholds == first.thresholds
    assert loaded.false_fire_rate == 0.25
    assert loaded.fingerprint == first.fingerprint
    memory = Memory(loaded, a=row(1), b=row(2))
    survivors = [("a", 0.9), ("b", 0.8)]
    assert again.route(row(1), survivors, memory) == loaded.route(row(1), survivors, memory)


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    files = tmp_path / "router.safetensors", tmp_path / "router.json"
    router().save(*files)
    text = files[1].read_text()

    files[1].write_text(text.replace('"width": 16', '"width": 32'))
    with pytest.raises(CheckpointCorrupt, match=r"router\.safetensors"):
        Router.load(*files)
    files[1].write_text(text.replace('"tau"', '"tow"'))
    with pytest.raises(CheckpointCorrupt, match="bad setting"):
        Router.load(*files)
    files[1].write_text(text.replace('"fingerprint": "sha256:', '"fingerprint": "sha256:0'))
    with pytest.raises(FingerprintMismatch):
        Router.load(*files)
