"""Where edits act and routing reads, by the number of blocks."""

from __future__ import annotations

import pytest

from editing_core.sites import edit_layer_for, router_layer_for


@pytest.mark.parametrize(("blocks", "edit", "router"), [(4, 1, 1), (32, 21, 16), (28, 18, 14)])
def test_the_layers_of_models_that_are_known(blocks: int, edit: int, router: int) -> None:
    assert edit_layer_for(blocks) == edit
    assert router_layer_for(blocks) == router


@pytest.mark.parametrize("blocks", range(1, 100))
def test_both_lie_in_the_model_and_in_order(blocks: int) -> None:
    assert 0 <= router_layer_for(blocks) <= edit_layer_for(blocks) <= blocks - 1
    if blocks > 1:
        assert edit_layer_for(blocks) < blocks - 1
