"""Edits and artifacts for tests."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from editing_core.editable_model import EditableModel
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.types import EditArtifact, EditRequest, ImageArray, RoutingKey


def unit_vector(seed: int, dim: int = 8) -> NDArray[np.float32]:
    """A random direction."""
    vector = np.random.default_rng(seed).standard_normal(dim)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def artifact(image_key: NDArray[np.float32], *, seed: int = 0) -> EditArtifact:
    """A well-formed artifact that no editor made."""
    random = torch.Generator().manual_seed(seed)
    return EditArtifact(
        editor="liveedit",
        edit_layer=1,
        positions="from_last_prompt_token",
        payload={
            "down": torch.randn(3, 4, generator=random).half(),
            "up": torch.randn(3, 4, generator=random).half(),
        },
        key=RoutingKey(
            image=image_key,
            text=np.ones((2, 3), dtype=np.float32),
            visual=np.zeros((2, 3), dtype=np.float32),
        ),
        backbone_fingerprint="sha256:b",
        editor_fingerprint="sha256:e",
        router_fingerprint="sha256:r",
        metadata={"kind": "aligned", "note": "été"},
    )


def entry(edit_id: str, image_key: NDArray[np.float32]) -> MemoryEntry:
    """An active edit with that key."""
    return MemoryEntry(edit_id, artifact(image_key), image_digest="sha256:i", prompt="?")


def snapshot_with(
    model: EditableModel,
    image: ImageArray,
    prompt: str,
    target: str,
    *,
    editor: str = "liveedit",
) -> Snapshot:
    """A snapshot with that one edit, `e1`."""
    made = model.encode(EditRequest(image, prompt, target), editor=editor)
    active = MemoryEntry("e1", made, image_digest="sha256:i", prompt=prompt)
    return model.empty_snapshot().evolve(1, activate=[active])
