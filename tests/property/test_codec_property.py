from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from editing_core.errors import ArtifactCorrupt
from editing_core.experts.codec import decode_artifact, encode_artifact
from editing_core.types import EditArtifact, RoutingKey
from tests.support.edits import artifact, unit_vector

DATA = encode_artifact(artifact(unit_vector(0)))
NAMES = st.text(alphabet="abcdefgh_.", min_size=1, max_size=8)


@given(position=st.integers(0, len(DATA) - 1), flip=st.integers(1, 255))
def test_no_changed_byte_passes_for_an_edit(position: int, flip: int) -> None:
    damaged = bytearray(DATA)
    damaged[position] ^= flip
    with pytest.raises(ArtifactCorrupt):
        decode_artifact(bytes(damaged))


@given(data=st.binary(max_size=200))
def test_no_other_bytes_pass_for_an_edit(data: bytes) -> None:
    with pytest.raises(ArtifactCorrupt):
        decode_artifact(data)


@given(
    metadata=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4),
    payload=st.dictionaries(NAMES, st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1),
    editor=st.text(max_size=8),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_artifact_comes_back_in_the_same_bytes(
    metadata: dict[str, str], payload: dict[str, tuple[int, int]], editor: str, seed: int
) -> None:
    random = np.random.default_rng(seed)

    def matrix() -> np.ndarray:
        return random.standard_normal((2, 3)).astype(np.float32)

    made = EditArtifact(
        editor=editor,
        edit_layer=seed,
        positions="all",
        payload={
            name: torch.from_numpy(random.standard_normal(shape)).half()
            for name, shape in payload.items()
        },
        key=RoutingKey(image=matrix()[0], text=matrix(), visual=matrix()),
        backbone_fingerprint="b",
        editor_fingerprint="e",
        router_fingerprint="r",
        metadata=metadata,
    )
    data = encode_artifact(made)
    back = decode_artifact(data)
    assert encode_artifact(back) == data
    assert back.metadata == metadata
    assert all(torch.equal(back.payload[name], made.payload[name]) for name in payload)
