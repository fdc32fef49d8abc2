"""Reading a Hugging Face folder so that nothing missing or damaged passes silently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from editing_core.config import Placement
from editing_core.errors import CheckpointCorrupt, UnknownArchitecture

M = TypeVar("M", bound=nn.Module)


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn what transformers raises on a damaged folder into `CheckpointCorrupt` naming it."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointCorrupt(f"{folder} cannot be read: {error}") from error


def load_weights(
    model_class: Any, folder: Path, placement: Placement, *, unpacked: Sequence[str] = ()
) -> nn.Module:
    """`from_pretrained` on a local folder: safetensors only, every weight found, frozen.

    Where the placement says so, matrices are quantised as they are read, but for modules named in
    `unpacked`: the head, and what looks at pictures, for it makes image keys.

    Raises `CheckpointCorrupt` naming the damaged file, or the weights that are missing: a model
    must never start with random ones.
    """
    for path in sorted(folder.glob("*.safetensors")):
        _check_header(path)
    with reading(folder), _without_progress_bars():
        model, report = model_class.from_pretrained(
            folder,
            dtype=placement.dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **quantising(placement, unpacked),
        )
    for problem in ("missing_keys", "mismatched_keys", "error_msgs"):
        if report.get(problem):
            names = ", ".join(sorted(str(name) for name in report[problem])[:5])
            raise CheckpointCorrupt(f"{folder}: {problem.replace('_', ' ')}: {names}")
    loaded: nn.Module = model.eval().requires_grad_(False)
    # What was quantised lies where it was read to, and refuses to be moved.
    return loaded if placement.quantization != "none" else loaded.to(placement.device)


def quantising(placement: Placement, unpacked: Sequence[str]) -> dict[str, Any]:
    """What `from_pretrained` is told for it: transformers' own way, with bitsandbytes."""
    if placement.quantization == "none":
        return {}
    config = BitsAndBytesConfig(
        load_in_8bit=placement.quantization == "int8",
        load_in_4bit=placement.quantization == "int4",
        llm_int8_skip_modules=list(unpacked),
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=placement.dtype,
    )
    return {"quantization_config": config, "device_map": {"": str(placement.device)}}


def without_weights(model_class: Any, folder: Path) -> nn.Module:
    """The model that a folder's `config.json` describes: every shape, no numbers, no memory.

    Raises `CheckpointCorrupt` where the configuration is damaged.
    """
    with reading(folder), torch.device("meta"):
        model: nn.Module = model_class(model_class.config_class.from_pretrained(folder))
    return model.eval().requires_grad_(False)


@overload
def resolve_module(root: nn.Module, path: str) -> nn.Module: ...
@overload
def resolve_module(root: nn.Module, path: str, kind: type[M]) -> M: ...
def resolve_module(root: nn.Module, path: str, kind: type[nn.Module] = nn.Module) -> nn.Module:
    """The submodule at `path`. Raises `UnknownArchitecture` naming the part that is not there."""
    try:
        module = root.get_submodule(path)
    except AttributeError as error:
        raise UnknownArchitecture(f"{type(root).__name__} has no {path}: {error}") from error
    if not isinstance(module, kind):
        raise UnknownArchitecture(f"{type(root).__name__}.{path} is no {kind.__name__}")
    return module


def _check_header(path: Path) -> None:
    try:
        with safe_open(path, framework="pt"):
            return
    except (SafetensorError, OSError) as error:
        raise CheckpointCorrupt(f"{path} is damaged: {error}") from error


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    was_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            transformers_logging.enable_progress_bar()
