from __future__ import annotations

import pytest

from editing_core.registry import BACKBONES, BASELINES, EDITORS, INDEXES, Registry


@pytest.mark.parametrize("registry", [BACKBONES, BASELINES, EDITORS, INDEXES])
def test_every_registered_name_resolves(registry: Registry) -> None:
    assert len(registry) > 0
    for name in registry:
        assert isinstance(registry.resolve(name), type)
        assert registry[name].startswith("editing_core.")


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(LookupError, match=r"unknown index 'hnsw'; known: exact, faiss_flat"):
        INDEXES.resolve("hnsw")
