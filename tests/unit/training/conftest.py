"""Tiny models of other families, and six records to train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from editing_core.backbones.base import Backbone
from editing_core.backbones.loading import find_checkpoint, load_backbone
from editing_core.config import Placement
from tests.support.datasets import record, write_dataset
from tests.support.tiny_families import FAMILIES

GetFolder = Callable[[str], Path]
GetBackbone = Callable[[str], Backbone]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> GetFolder:
    """A family's plain folder, written once. Read it only; copy it to change it."""
    root = tmp_path_factory.mktemp("families")

    def get(family: str) -> Path:
        if family == "llava":
            return tiny_checkpoint
        if not (root / family).is_dir():
            FAMILIES[family].save(root / family)
        return root / family

    return get


@pytest.fixture(scope="session")
def backbone_of(folder_of: GetFolder) -> GetBackbone:
    """A family's tiny model, loaded once."""
    loaded: dict[str, Backbone] = {}

    def get(family: str) -> Backbone:
        if family not in loaded:
            layout = find_checkpoint(folder_of(family))
            loaded[family] = load_backbone(layout, Placement.resolve())
        return loaded[family]

    return get


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VLKEB's train split: six entities."""
    folder = tmp_path_factory.mktemp("vlkeb")
    return write_dataset(folder, [record(n) for n in range(1, 7)], file="train.json")
