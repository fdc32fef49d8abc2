"""One trained part on disk: weights in safetensors, everything else about it in JSON.

    <part>.safetensors    float16 tensors; float32 those that hold a number beyond its range
    <part>.json           {"kind", "config", "fingerprint", ...}

Weights are rounded once, when they are saved, and used in float32; whoever calibrates does it on
the rounded ones. Measured states of some models lie beyond float16, whose range ends at 65,504.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from editing_core.errors import CheckpointCorrupt, CheckpointMissing, NotFinite


def weights_fingerprint(module: nn.Module, config: Mapping[str, Any]) -> str:
    """`sha256:...` over weights as stored and configuration; equal on every machine."""
    total = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(_stored(module).items()):
        total.update(f"\n{name} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.numpy().tobytes())
    return f"sha256:{total.hexdigest()}"


def save_part(
    weights: Path, description: Path, module: nn.Module, document: Mapping[str, Any]
) -> None:
    """Write both files, each beside the old one and then renamed over it; the JSON last.

    Raises `NotFinite`, and writes nothing, where a number is NaN or infinity.
    """
    tensors = _stored(module)
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise NotFinite(f"{weights.stem} was not written: its {name} is NaN or infinity")
    weights.parent.mkdir(parents=True, exist_ok=True)
    part = weights.with_suffix(weights.suffix + ".part")
    save_file(tensors, part)
    part.replace(weights)
    write_description(description, document)


def write_description(description: Path, document: Mapping[str, Any]) -> None:
    """Write the JSON beside the old one and rename it over it."""
    part = description.with_suffix(description.suffix + ".part")
    part.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(description)


def read_description(description: Path, *, kind: str | None = None) -> dict[str, Any]:
    """The JSON of a part, of this kind or of any.

    Raises:
        CheckpointMissing: there is no such file.
        CheckpointCorrupt: it is not the description of a part of this kind.
    """
    try:
        document: dict[str, Any] = json.loads(description.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointMissing(f"there is no {description}") from error
    except ValueError as error:
        raise CheckpointCorrupt(f"{description} is not JSON") from error
    named = document.get("kind") if isinstance(document, dict) else None
    if not isinstance(named, str) or kind not in (None, named):
        raise CheckpointCorrupt(f"{description} does not describe a {kind or 'part'}")
    if not isinstance(document.get("config"), dict):
        raise CheckpointCorrupt(f"{description} has no 'config'")
    return document


def load_weights(weights: Path, module: nn.Module) -> None:
    """Fill `module` with float32 copies of the stored weights.

    Raises:
        CheckpointMissing: there is no such file.
        CheckpointCorrupt: it cannot be read, or does not fit the module.
    """
    if not weights.is_file():
        raise CheckpointMissing(f"there is no {weights}")
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise CheckpointCorrupt(f"{weights} cannot be read: {error}") from error
    try:
        module.load_state_dict({name: t.float() for name, t in tensors.items()})
    except RuntimeError as error:
        raise CheckpointCorrupt(f"{weights} does not fit its description") from error
    if not all(bool(torch.isfinite(t).all()) for t in module.state_dict().values()):
        raise CheckpointCorrupt(f"{weights} holds values that are not finite")


def round_weights(module: nn.Module) -> None:
    """Round in place as `save_part` will, so that what is calibrated is what will be loaded."""
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.copy_(_rounded(tensor))


def _stored(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: _rounded(tensor.detach().cpu()).contiguous()
        for name, tensor in module.state_dict().items()
    }


def _rounded(tensor: Tensor) -> Tensor:
    """In float16, or where that would make infinity of a number, as it is in float32."""
    half = tensor.to(torch.float16)
    is_lost = bool((half.isinf() & tensor.isfinite()).any())
    return tensor.float() if is_lost else half
