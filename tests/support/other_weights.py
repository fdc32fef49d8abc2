"""A checkpoint whose router or editor was trained a little further, saved as training saves it."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import nn

from editing_core.checkpoint import CheckpointLayout, write_manifest
from editing_core.registry import EDITORS
from editing_core.routing.router import Router


def trained_further(source: Path, folder: Path, part: str, *, by: float = 0.02) -> Path:
    """A copy of `source` in `folder`, which is returned; `part` is `router` or an editor's name.

    Its weights move by `by` of their own spread and all others stay: it knows what it knew, and
    its fingerprint is another.
    """
    shutil.copytree(source, folder)
    paths = CheckpointLayout(folder).part(part)
    if part == "router":
        # A part takes its fingerprint once, so a fresh one is moved.
        router = Router.load(*paths).with_thresholds()
        _move(router, by)
        router.save(*paths)
    else:
        loaded = EDITORS.resolve(part).load(*paths)
        editor = type(loaded)(loaded.config, backbone_fingerprint=loaded.backbone_fingerprint)
        editor.module.load_state_dict(loaded.module.state_dict())
        _move(editor.module, by)
        editor.save(*paths)
    write_manifest(folder)
    return folder


def _move(module: nn.Module, by: float) -> None:
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                noise = torch.randn(parameter.shape, generator=random)
                parameter.add_(noise * parameter.std(), alpha=by)
