"""From a name, folder or hub id to a backbone: one way for the embedded model and any other."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from editing_core.backbones.base import Backbone
from editing_core.checkpoint import EMBEDDED, CheckpointLayout, fingerprint_files, verify_manifest
from editing_core.config import DEFAULT_MODEL, Placement
from editing_core.errors import CheckpointCorrupt, CheckpointMissing, UnknownArchitecture
from editing_core.registry import BACKBONES, EDITORS

logger = logging.getLogger(__name__)

_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]


@dataclass(frozen=True, slots=True)
class PartFingerprints:
    """Identity of each part of a checkpoint; editors by name, those that it has."""

    backbone: str
    router: str
    editors: dict[str, str]


def find_checkpoint(path: str | Path | None) -> CheckpointLayout:
    """Where the checkpoint lies: None or `heraldry` is the embedded one, else a folder or hub id.

    Raises `CheckpointMissing` when there is none, `CheckpointCorrupt` when a manifest does not
    match.
    """
    if path is None or path == DEFAULT_MODEL:
        root = EMBEDDED
    elif Path(path).is_dir():
        root = Path(path)
    else:
        root = _download(str(path))
    layout = CheckpointLayout(root)
    if not (layout.model / "config.json").is_file():
        raise CheckpointMissing(f"{layout.model} holds no model: config.json is not there")
    # A plain Hugging Face folder has no manifest; one that was laid out by us must.
    if layout.manifest.is_file() or layout.model != layout.root:
        verify_manifest(layout.root)
    return layout


def load_backbone(
    layout: CheckpointLayout, placement: Placement, *, clip: Path | None = None
) -> Backbone:
    """Load the model of `layout` with the backbone registered for its family.

    `clip` is the folder of a CLIPModel that makes the image keys, if the checkpoint has none of
    its own. A family whose tower makes no keys has the embedded model's, and the log says so.

    Raises `UnknownArchitecture` when none is, and `CheckpointCorrupt` naming the damaged file.
    """
    backbone_class = _class_of(layout)
    clip = _clip_of(layout, backbone_class, clip)
    return backbone_class.load(
        layout.model,
        clip=clip,
        placement=placement,
        fingerprint=_fingerprint(layout, clip),
    )


def part_fingerprints(layout: CheckpointLayout) -> PartFingerprints:
    """What loading `layout` would find, told from its files: no weights are loaded.

    Raises `CheckpointMissing` when it has no router, and what `load_backbone` raises.
    """
    clip = layout.clip or _clip_of(layout, _class_of(layout), None)
    return PartFingerprints(
        _fingerprint(layout, clip),
        _described(layout, "router"),
        {name: _described(layout, name) for name in EDITORS if layout.has(name)},
    )


def _described(layout: CheckpointLayout, part: str) -> str:
    _, description = layout.part(part)
    try:
        return str(json.loads(description.read_text("utf-8"))["fingerprint"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointCorrupt(f"{description} is damaged: {error!r}") from error


def _class_of(layout: CheckpointLayout) -> type[Backbone]:
    """The backbone registered for the model's family."""
    config = layout.model / "config.json"
    try:
        family = json.loads(config.read_text("utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointCorrupt(f"{config} is damaged: {error!r}") from error
    try:
        backbone_class: type[Backbone] = BACKBONES.resolve(family)
    except LookupError as error:
        raise UnknownArchitecture(
            f"{error}. A family is added in one file; docs/adding.md says how."
        ) from error
    return backbone_class


def _clip_of(
    layout: CheckpointLayout, backbone_class: type[Backbone], clip: Path | None
) -> Path | None:
    """The folder of the CLIPModel that makes the image keys; None where the backbone does."""
    clip = layout.clip or clip
    if clip is None and not backbone_class.makes_own_keys:
        clip = CheckpointLayout(EMBEDDED).clip
        name = backbone_class.__name__
        logger.info("%s makes no image keys: the embedded model's CLIP makes them", name)
    return clip


def _fingerprint(layout: CheckpointLayout, clip: Path | None) -> str:
    return fingerprint_files(layout.model, *([clip] if clip else []))


def _download(name: str) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise CheckpointMissing(
            f"there is no checkpoint {name!r}: no such folder, and the hub gave none ({error})",
            hint="Check the path or hub id, and the network.",
        ) from error
