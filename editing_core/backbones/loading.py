"""From a name, folder or hub id to a backbone: one way for the embedded model and any other."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from editing_core.backbones.base import Backbone
from editing_core.checkpoint import EMBEDDED, CheckpointLayout, fingerprint_files, verify_manifest
from editing_core.config import DEFAULT_MODEL, Placement
from editing_core.errors import CheckpointCorrupt, CheckpointMissing, UnknownArchitecture
from editing_core.registry import BACKBONES

logger = logging.getLogger(__name__)

_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]


def find_checkpoint(path: str | Path | None, *, with_weights: bool = True) -> CheckpointLayout:
    """Where the checkpoint lies: None or `heraldry` is the embedded one, else a folder or hub id.

    Without weights, only what describes the model is fetched from the hub.

    Raises `CheckpointMissing` when there is none, `CheckpointCorrupt` when a manifest does not
    match.
    """
    if path is None or path == DEFAULT_MODEL:
        root = EMBEDDED
    elif Path(path).is_dir():
        root = Path(path)
    else:
        root = _download(str(path), _HUB_FILES if with_weights else _HUB_FILES[1:])
    layout = CheckpointLayout(root)
    if not (layout.model / "config.json").is_file():
        raise CheckpointMissing(f"{layout.model} holds no model: config.json is not there")
    # A plain Hugging Face folder has no manifest; one that was laid out by us must.
    if with_weights and (layout.manifest.is_file() or layout.model != layout.root):
        verify_manifest(layout.root)
    return layout


def family_of(layout: CheckpointLayout) -> type[Backbone]:
    """The backbone registered for the model's family, by its configuration alone.

    Raises `UnknownArchitecture` when none is, `CheckpointCorrupt` on a damaged configuration.
    """
    config = layout.model / "config.json"
    try:
        family = json.loads(config.read_text("utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointCorrupt(f"{config} is damaged: {error!r}") from error
    try:
        found: type[Backbone] = BACKBONES.resolve(family)
    except LookupError as error:
        raise UnknownArchitecture(
            f"{error}. A family is added in one file; docs/adding.md says how."
        ) from error
    return found


def load_backbone(
    layout: CheckpointLayout, placement: Placement, *, clip: Path | None = None
) -> Backbone:
    """Load the model of `layout` with the backbone registered for its family.

    `clip` is the folder of a CLIPModel that makes the image keys, if the checkpoint has none of
    its own. A family whose tower makes no keys has the embedded model's, and the log says so.

    Raises `UnknownArchitecture` when none is, and `CheckpointCorrupt` naming the damaged file.
    """
    backbone_class = family_of(layout)
    clip = layout.clip or clip
    if clip is None and not backbone_class.makes_own_keys:
        clip = CheckpointLayout(EMBEDDED).clip
        logger.info(
            "%s makes no image keys: the embedded model's CLIP makes them",
            backbone_class.architecture,
        )
    folders = [layout.model] + ([clip] if clip else [])
    return backbone_class.load(
        layout.model,
        clip=clip,
        placement=placement,
        fingerprint=fingerprint_files(*folders),
    )


def _download(name: str, patterns: list[str]) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise CheckpointMissing(
            f"there is no checkpoint {name!r}: no such folder, and the hub gave none ({error})",
            hint="Check the path or hub id, and the network.",
        ) from error
