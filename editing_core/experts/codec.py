"""An artifact as bytes: one safetensors file, the same bytes for the same artifact, and checked.

    header  {"__metadata__": {"errata": <canonical JSON>}, "key.image": ..., "payload.down": ...}
    JSON    format, editor, edit_layer, positions, fingerprints, metadata, content digest

Where a tensor lies beyond float16 (see `rounding`), its float16 part is here, the format is another
one, and `exponents` in the JSON names the power of two for each such tensor.

safetensors knows shapes and types but has no checksum, so the JSON holds one over all the rest:
no changed byte passes for an edit. Nothing here is executed: no pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from editing_core.errors import ArtifactCorrupt
from editing_core.experts.rounding import is_rounded, joined, split
from editing_core.types import EditArtifact, Positions, RoutingKey, no_sketch

_FORMAT = "errata-artifact-v1"
_SCALED_FORMAT = "errata-artifact-v2"
_SLOT = "errata"
_PAYLOAD = "payload."
_KEY_SHAPES = {"key.image": 1, "key.text": 2, "key.visual": 2}
_SKETCH = "key.sketch"
"""Only where there is one: the bytes of artifacts without are what they were before sketches."""
# A router of frozen features tells pictures apart by their image keys alone.
_MAY_BE_EMPTY = {"key.visual"}
_TEXTS = ("editor", "backbone_fingerprint", "editor_fingerprint", "router_fingerprint")
_FIELDS = {"format", "edit_layer", "positions", "metadata", "content", *_TEXTS}
_PLAIN = {"format": _FORMAT}


def encode_artifact(artifact: EditArtifact) -> bytes:
    """Deterministic bytes. Raises `ArtifactCorrupt`, naming the field, on values no edit may have:
    other types or ranks, no payload, or numbers that are not finite."""
    tensors, exponents = {}, {}
    for name, tensor in artifact.payload.items():
        field = f"{_PAYLOAD}{name}"
        tensors[field], exponent = _split(field, tensor)
        if exponent:
            exponents[field] = exponent
    key = artifact.key
    for name, array in zip(_KEY_SHAPES, (key.image, key.text, key.visual), strict=True):
        tensors[name] = torch.from_numpy(np.array(array))
    if key.sketch.size:
        tensors[_SKETCH] = torch.from_numpy(np.array(key.sketch))
    _check_tensors(tensors)
    description: dict[str, Any] = {
        **({"format": _SCALED_FORMAT, "exponents": exponents} if exponents else _PLAIN),
        "edit_layer": artifact.edit_layer,
        "positions": artifact.positions,
        "metadata": dict(artifact.metadata),
        **{name: getattr(artifact, name) for name in _TEXTS},
    }
    description["content"] = _content_digest(description, tensors)
    _check_description(description)
    return save(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        # One entry only: safetensors writes several in an order that changes from run to run.
        metadata={_SLOT: _canonical(description)},
    )


def decode_artifact(data: bytes) -> EditArtifact:
    """Read `encode_artifact`'s bytes back. Raises `ArtifactCorrupt` with the reason."""
    description = _read_description(data)
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ArtifactCorrupt(f"the artifact cannot be read: {error}") from error
    _check_tensors(tensors)
    _check_description(description)
    if description["content"] != _content_digest(description, tensors):
        raise ArtifactCorrupt("the artifact's contents do not match their digest", field="content")
    tensors = _joined(description, tensors)
    image, text, visual = (tensors[name].numpy().copy() for name in _KEY_SHAPES)
    sketch = tensors[_SKETCH].numpy().copy() if _SKETCH in tensors else no_sketch()
    return EditArtifact(
        edit_layer=description["edit_layer"],
        positions=description["positions"],
        payload={
            name.removeprefix(_PAYLOAD): tensor.clone()
            for name, tensor in tensors.items()
            if name.startswith(_PAYLOAD)
        },
        key=RoutingKey(image, text, visual, sketch),
        metadata=description["metadata"],
        **{name: description[name] for name in _TEXTS},
    )


def read_head(data: bytes) -> EditArtifact:
    """What bytes say of an artifact, with what its picture is known by: no payload, no other keys.

    For bytes that are known to be what `encode_artifact` made: neither the content's digest nor
    any other tensor is looked at. Raises `ArtifactCorrupt` where even that cannot be read.
    """
    description = _read_description(data)
    _check_description(description)
    length = int.from_bytes(data[:8], "little")
    try:
        places, body = json.loads(data[8 : 8 + length]), data[8 + length :]
        place = places["key.image"]
        start, end = place["data_offsets"]
        image = np.frombuffer(body[start:end], dtype="<f4").astype(np.float32)
        sketch = no_sketch()
        if _SKETCH in places:
            start, end = places[_SKETCH]["data_offsets"]
            sketch = np.frombuffer(body[start:end], dtype=np.int8).copy()
        is_key = place["dtype"] == "F32" and place["shape"] == [len(image)] and len(image) > 0
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactCorrupt(f"the artifact has no key.image: {error!r}") from error
    if not is_key or not np.isfinite(image).all():
        raise ArtifactCorrupt("key.image is not what it should be", field="key.image")
    nothing = np.empty((0, 0), dtype=np.float32)
    return EditArtifact(
        edit_layer=description["edit_layer"],
        positions=description["positions"],
        payload={},
        key=RoutingKey(image, nothing, nothing, sketch),
        metadata=description["metadata"],
        **{name: description[name] for name in _TEXTS},
    )


def artifact_digest(data: bytes) -> str:
    """Identity of an artifact's bytes: `sha256:...`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _read_description(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ArtifactCorrupt("the artifact is truncated", field="header")
    header = data[8 : 8 + length]
    body = header.rstrip(b" ")
    # Only blanks may follow the header; anything else would be a change that passes unseen.
    if not body.endswith(b"}"):
        raise ArtifactCorrupt("the artifact's header is damaged", field="header")
    try:
        text = json.loads(body)["__metadata__"][_SLOT]
        description = json.loads(text)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactCorrupt(f"the artifact's header is damaged: {error!r}") from error
    # JSON can say one thing in several ways; only ours was written.
    if not isinstance(description, dict) or _canonical(description) != text:
        raise ArtifactCorrupt("the artifact's description is not canonical", field="header")
    return description


def _check_description(description: Mapping[str, Any]) -> None:
    fields = {_FORMAT: _FIELDS, _SCALED_FORMAT: _FIELDS | {"exponents"}}
    if description.get("format") not in fields:
        raise ArtifactCorrupt(
            f"unknown artifact format {description.get('format')!r}", field="format"
        )
    if odd := fields[description["format"]].symmetric_difference(description):
        raise ArtifactCorrupt(
            f"the artifact's description lacks or adds: {', '.join(sorted(odd))}", field="header"
        )
    for name in (*_TEXTS, "content"):
        if not isinstance(description[name], str):
            raise ArtifactCorrupt(f"the artifact's {name} is not text", field=name)
    layer = description["edit_layer"]
    if not isinstance(layer, int) or isinstance(layer, bool) or layer < 0:
        raise ArtifactCorrupt(f"the artifact's edit layer is {layer!r}", field="edit_layer")
    if description["positions"] not in get_args(Positions):
        raise ArtifactCorrupt(
            f"the artifact acts on unknown positions {description['positions']!r}",
            field="positions",
        )
    metadata = description["metadata"]
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ArtifactCorrupt("the artifact's metadata is not text", field="metadata")


def _split(name: str, tensor: Tensor) -> tuple[Tensor, int]:
    if tensor.dtype != torch.float32:
        return tensor, 0
    try:
        return split(tensor)
    except ValueError as error:
        raise ArtifactCorrupt(f"{name} is {tensor.dtype}, and {error}", field=name) from error


def _joined(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as an expert has them. Nothing that was never split is joined."""
    exponents = description.get("exponents", {})
    if not isinstance(exponents, dict) or (not exponents and "exponents" in description):
        raise ArtifactCorrupt("the artifact names no exponents", field="exponents")
    found = dict(tensors)
    for name, exponent in exponents.items():
        is_one = type(exponent) is int and 0 < exponent < 128
        if not is_one or not name.startswith(_PAYLOAD) or name not in tensors:
            raise ArtifactCorrupt(f"the exponent of {name!r} is {exponent!r}", field="exponents")
        found[name] = joined(tensors[name], exponent)
        if not is_rounded(found[name], exponent):
            raise ArtifactCorrupt(f"{name} needs no exponent of {exponent}", field="exponents")
    return found


def _check_tensors(tensors: Mapping[str, Tensor]) -> None:
    for name, rank in _KEY_SHAPES.items():
        if name not in tensors:
            raise ArtifactCorrupt(f"the artifact has no {name}", field=name)
        _check_tensor(name, tensors[name], torch.float32)
        if tensors[name].ndim != rank:
            raise ArtifactCorrupt(f"{name} has {tensors[name].ndim} axes, not {rank}", field=name)
    if _SKETCH in tensors:
        _check_tensor(_SKETCH, tensors[_SKETCH], torch.int8)
        if tensors[_SKETCH].ndim != 1:
            raise ArtifactCorrupt(f"{_SKETCH} has {tensors[_SKETCH].ndim} axes", field=_SKETCH)
    payload = [name for name in tensors if name not in (*_KEY_SHAPES, _SKETCH)]
    if not payload:
        raise ArtifactCorrupt("the artifact has no payload", field="payload")
    for name in payload:
        if not name.startswith(_PAYLOAD):
            raise ArtifactCorrupt(f"the artifact has an unknown tensor {name!r}", field=name)
        _check_tensor(name, tensors[name], torch.float16)


def _check_tensor(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    if tensor.dtype != dtype:
        raise ArtifactCorrupt(f"{name} is {tensor.dtype}, not {dtype}", field=name)
    if tensor.device.type != "cpu":
        raise ArtifactCorrupt(f"{name} is on {tensor.device}, not on the CPU", field=name)
    is_empty = tensor.numel() == 0 and name not in _MAY_BE_EMPTY
    if is_empty or not bool(torch.isfinite(tensor).all()):
        raise ArtifactCorrupt(f"{name} is empty or holds values that are not finite", field=name)


def _content_digest(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    rest = {name: value for name, value in description.items() if name != "content"}
    total.update(_canonical(rest).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        values: NDArray[Any] = tensor.numpy()
        total.update(values.tobytes())
    return f"sha256:{total.hexdigest()}"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
