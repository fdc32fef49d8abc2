from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from editing_core.errors import ArtifactCorrupt
from editing_core.experts import codec
from editing_core.experts.codec import artifact_digest, decode_artifact, encode_artifact
from editing_core.experts.rounding import rounded
from editing_core.types import EditArtifact
from tests.support.edits import artifact, unit_vector

ARTIFACT = artifact(unit_vector(0))
DATA = encode_artifact(ARTIFACT)
DIGEST = "sha256:157f3dc181a61b18bd108bf092201c1b9f238299cc5efc16831a8b3378839cd9"
"""Of these bytes as the first release wrote them."""


def assert_same(first: EditArtifact, second: EditArtifact) -> None:
    assert set(first.payload) == set(second.payload)
    for name, tensor in first.payload.items():
        assert torch.equal(tensor, second.payload[name])
        assert tensor.dtype == second.payload[name].dtype
    for name in ("image", "text", "visual", "sketch"):
        assert np.array_equal(getattr(first.key, name), getattr(second.key, name))
    for name in ("editor", "edit_layer", "positions", "backbone_fingerprint", "metadata"):
        assert getattr(first, name) == getattr(second, name)
    assert first.editor_fingerprint == second.editor_fingerprint
    assert first.router_fingerprint == second.router_fingerprint


def test_what_was_encoded_comes_back() -> None:
    assert_same(decode_artifact(DATA), ARTIFACT)


def test_a_sketch_comes_back_and_is_nothing_where_there_is_none() -> None:
    sketch = np.arange(-4, 4, dtype=np.int8)
    sketched = replace(ARTIFACT, key=replace(ARTIFACT.key, sketch=sketch))
    assert_same(decode_artifact(encode_artifact(sketched)), sketched)
    assert "key.sketch" not in load(DATA)


def test_the_bytes_are_the_same_every_time() -> None:
    reordered = replace(
        ARTIFACT,
        payload=dict(reversed(list(ARTIFACT.payload.items()))),
        metadata=dict(reversed(list(ARTIFACT.metadata.items()))),
    )
    assert encode_artifact(reordered) == DATA
    assert encode_artifact(decode_artifact(DATA)) == DATA


def test_the_digest_names_the_bytes() -> None:
    assert artifact_digest(DATA).startswith("sha256:")
    assert artifact_digest(DATA) != artifact_digest(DATA + b" ")


def test_decoded_tensors_can_be_changed_without_harm() -> None:
    first = decode_artifact(DATA)
    first.payload["up"].zero_()
    first.key.image[0] = 9.0
    assert_same(decode_artifact(DATA), ARTIFACT)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 40, len(DATA) // 2, len(DATA) - 1])
def test_a_truncated_artifact_is_refused(length: int) -> None:
    with pytest.raises(ArtifactCorrupt):
        decode_artifact(DATA[:length])


def test_bytes_behind_the_end_are_refused() -> None:
    with pytest.raises(ArtifactCorrupt):
        decode_artifact(DATA + b"\0")


def test_a_changed_number_is_refused() -> None:
    tensors = load(DATA)
    tensors["payload.up"][0, 0] += 1
    header = json.loads(DATA[8 : 8 + int.from_bytes(DATA[:8], "little")])
    forged = save(tensors, metadata=header["__metadata__"])
    with pytest.raises(ArtifactCorrupt, match="digest") as caught:
        decode_artifact(forged)
    assert caught.value.field == "content"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"payload": {}}, "payload"),
        ({"payload": {"up": torch.ones(2, 2)}}, "payload.up"),
        ({"payload": {"up": torch.tensor([float("nan")]).half()}}, "payload.up"),
        ({"payload": {"up": torch.tensor([float("inf")]).half()}}, "payload.up"),
        ({"payload": {"up": torch.empty(0).half()}}, "payload.up"),
        ({"edit_layer": -1}, "edit_layer"),
        ({"edit_layer": True}, "edit_layer"),
        ({"positions": "nowhere"}, "positions"),
        ({"editor": 3}, "editor"),
        ({"metadata": {"a": 1}}, "metadata"),
    ],
)
def test_values_that_no_edit_may_have_are_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ArtifactCorrupt) as caught:
        encode_artifact(replace(ARTIFACT, **changes))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("image", np.full(3, np.nan, dtype=np.float32)),
        ("image", np.ones((1, 3), dtype=np.float32)),
        ("text", np.ones(3, dtype=np.float32)),
        ("visual", np.ones((2, 3), dtype=np.float64)),
        ("sketch", np.ones(3, dtype=np.float32)),
        ("sketch", np.ones((1, 3), dtype=np.int8)),
    ],
)
def test_keys_of_another_form_are_refused(name: str, array: Any) -> None:
    with pytest.raises(ArtifactCorrupt) as caught:
        encode_artifact(replace(ARTIFACT, key=replace(ARTIFACT.key, **{name: array})))
    assert caught.value.field == f"key.{name}"


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"errata": "not json"},
        {"errata": "[]"},
        {"errata": json.dumps({"format": "errata-artifact-v9"})},
        {"errata": json.dumps({"format": "errata-artifact-v1", "surprise": 1})},
    ],
)
def test_a_description_of_another_form_is_refused(metadata: dict[str, str] | None) -> None:
    with pytest.raises(ArtifactCorrupt):
        decode_artifact(save(load(DATA), metadata=metadata))


@pytest.mark.parametrize("bit", [1, 2, 4, 8, 16, 32, 64, 128])
def test_no_flipped_bit_passes_unseen(bit: int) -> None:
    for position in range(len(DATA)):
        damaged = bytearray(DATA)
        damaged[position] ^= bit
        with pytest.raises(ArtifactCorrupt):
            decode_artifact(bytes(damaged))


def test_a_tensor_too_many_or_too_few_is_refused() -> None:
    header = json.loads(DATA[8 : 8 + int.from_bytes(DATA[:8], "little")])
    for change in ({"odd": torch.ones(1)}, {"key.text": None}):
        tensors = {k: v for k, v in (load(DATA) | change).items() if v is not None}
        with pytest.raises(ArtifactCorrupt):
            decode_artifact(save(tensors, metadata=header["__metadata__"]))


LARGE = replace(
    ARTIFACT,
    payload={**ARTIFACT.payload, "up": rounded(torch.tensor([[70_001.0, -1 / 3, 2.0**30]]))},
)


def forged(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The bytes with another description, and its digest made right."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    description = json.loads(header["__metadata__"]["errata"])
    change(description)
    tensors = load(data)
    description["content"] = codec._content_digest(description, tensors)
    return save(tensors, metadata={"errata": codec._canonical(description)})


def test_numbers_beyond_float16_come_back() -> None:
    data = encode_artifact(LARGE)

    assert_same(decode_artifact(data), LARGE)
    assert encode_artifact(decode_artifact(data)) == data
    assert load(data)["payload.up"].dtype == torch.float16
    assert forged(data, lambda _: None) == data


def test_an_artifact_within_float16_has_the_bytes_it_always_had() -> None:
    assert artifact_digest(DATA) == DIGEST
    assert b"errata-artifact-v1" in DATA
    assert b"exponents" not in DATA


@pytest.mark.parametrize(
    "exponents",
    [{}, [], None, {"payload.up": 0}, {"payload.up": "15"}, {"payload.up": True},
     {"payload.up": 10**9}, {"payload.none": 15}, {"key.text": 1}, {"payload.down": 1}],
)  # fmt: skip
def test_no_other_exponent_passes(exponents: Any) -> None:
    data = encode_artifact(LARGE)
    with pytest.raises(ArtifactCorrupt) as caught:
        decode_artifact(forged(data, lambda made: made.update(exponents=exponents)))
    assert caught.value.field == "exponents"


@pytest.mark.parametrize(
    ("data", "name"),
    [(DATA, "errata-artifact-v2"), (encode_artifact(LARGE), "errata-artifact-v1")],
    ids=["missing", "surplus"],
)
def test_exponents_belong_to_their_format(data: bytes, name: str) -> None:
    with pytest.raises(ArtifactCorrupt, match="exponents"):
        decode_artifact(forged(data, lambda made: made.update(format=name)))
