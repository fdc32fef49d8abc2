"""What holds for every test, and the one tiny checkpoint of a session."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from editing_core.editable_model import EditableModel

# Before any test imports a library that reads them: no test may reach the network, and a
# tokenizer must not warn when a test forks. The models of these tests are so small that a second
# thread only waits for the first.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Words mean nothing to models with random weights. Tests of the model that ships, which means
# what it says, name the shipped question encoder, and the shipped eyes.
os.environ.setdefault("ERRATA_QUESTION_ENCODER", "none")
os.environ.setdefault("ERRATA_EYES", "none")
# A test that wants an edit to be answered 202 says so itself; no slow machine decides it.
os.environ.setdefault("ERRATA_EDIT_WAIT_S", "600")

# No test depends on how fast the machine is.
settings.register_profile("errata", deadline=None)
settings.load_profile("errata")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint with random weights. Read it only; copy it to change it."""
    # Imported late: tests that need no model should not wait for torch.
    from tests.support.tiny_model import save_tiny_checkpoint

    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint: Path) -> EditableModel:
    """It, loaded with every editor."""
    from editing_core.editable_model import EditableModel
    from editing_core.registry import EDITORS

    return EditableModel.load(tiny_checkpoint, editors=tuple(EDITORS), questions="none")


@pytest.fixture(scope="session")
def embedded_model() -> EditableModel:
    """The model that ships, with every editor: it really answers."""
    from editing_core.editable_model import EditableModel
    from editing_core.registry import EDITORS

    return EditableModel.load(editors=tuple(EDITORS))
