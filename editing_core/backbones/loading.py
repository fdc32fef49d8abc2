"""From a name, folder or hub id to a backbone: one way for the embedded model and any other."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from editing_core.backbones.base import Backbone
from editing_core.backbones.refusals import refuse_adapters, refuse_unsupported
from editing_core.backbones.rehearsal import lay_out_once, rehearse
from editing_core.backbones.weights import reading
from editing_core.checkpoint import EMBEDDED, CheckpointLayout, fingerprint_files, verify_manifest
from editing_core.config import DEFAULT_MODEL, Placement
from editing_core.contents import fingerprint_contents
from editing_core.errors import (
    CheckpointCorrupt,
    CheckpointMissing,
    CheckpointUnsupported,
    RequestError,
    UnknownArchitecture,
)
from editing_core.eyes.eyes import Eyes
from editing_core.registry import BACKBONES, EDITORS

logger = logging.getLogger(__name__)

EMBEDDED_KEYS = f"{DEFAULT_MODEL}-clip"
"""What image keys are called that the shipped embedded CLIP makes for another model."""

_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]


def find_checkpoint(
    path: str | Path | None,
    *,
    revision: str | None = None,
    with_code: bool = False,
    with_weights: bool = True,
) -> CheckpointLayout:
    """Where the checkpoint lies: None or `heraldry` is the embedded one, else a folder or hub id.

    `revision` is a branch, tag or commit of a hub id, and means nothing to a folder. `with_code`
    also fetches Python files, for a processor that brings its own; without weights, only what
    describes the model is fetched from the hub.

    Raises `CheckpointMissing` when there is none, `CheckpointCorrupt` when a manifest does not
    match.
    """
    if path is None or path == DEFAULT_MODEL:
        root = EMBEDDED
    elif Path(path).is_dir():
        root = Path(path)
    else:
        files = _HUB_FILES if with_weights else _HUB_FILES[1:]
        root = _download(str(path), [*files, "*.py"] if with_code else files, revision=revision)
    layout = CheckpointLayout(root)
    if not (layout.model / "config.json").is_file():
        refuse_adapters(layout.model)
        raise CheckpointMissing(f"{layout.model} holds no model: config.json is not there")
    # A plain Hugging Face folder has no manifest; one that was laid out by us must.
    if with_weights and (layout.manifest.is_file() or layout.model != layout.root):
        verify_manifest(layout.root)
    return layout


def family_of(layout: CheckpointLayout) -> type[Backbone]:
    """The backbone registered for the model's family, by its configuration alone.

    Raises `UnknownArchitecture` when none is, `CheckpointCorrupt` on a damaged configuration, and
    what `refuse_unsupported` raises.
    """
    config = layout.model / "config.json"
    try:
        described = json.loads(config.read_text("utf-8"))
        family = described["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointCorrupt(f"{config} is damaged: {error!r}") from error
    refuse_unsupported(layout.model, described)
    try:
        found: type[Backbone] = BACKBONES.resolve(family)
    except LookupError as error:
        raise UnknownArchitecture(
            f"{config} names a model that cannot be served: {error}",
            hint="A family is added in one file: docs/adding.md says how.",
        ) from error
    return found


def load_backbone(
    layout: CheckpointLayout,
    placement: Placement,
    *,
    clip: Path | None = None,
    trust_remote_code: bool = False,
    parts: Path | None = None,
    eyes: Eyes | None = None,
) -> Backbone:
    """Load the model of `layout` with the backbone registered for its family.

    `clip` is the folder of a CLIPModel that makes the image keys, if the checkpoint has none of
    its own. A family whose tower makes no keys has the embedded model's, and the log says so.
    `parts` is the folder of measured parts, which may know the model by an earlier name.
    `eyes` are for the embedded model: every other model keeps the keys that it has.
    `trust_remote_code` lets the checkpoint's processor run code of its own; models never do.

    What can be told without weights is told before any is read, and the model is tried once.

    Raises `UnknownArchitecture` when none is, `CheckpointCorrupt` naming the damaged file,
    `CheckpointUnsupported` and `NotFinite` for a model that cannot be served.
    """
    backbone_class = family_of(layout)
    _outlined(backbone_class, layout.model, trust_remote_code=trust_remote_code)
    clip = _clip_of(layout, backbone_class, clip)
    backbone = backbone_class.load(
        layout.model,
        clip=clip,
        placement=placement,
        fingerprint=_fingerprint(layout, clip, placement.quantization, parts),
        trust_remote_code=trust_remote_code,
    )
    if clip == CheckpointLayout(EMBEDDED).clip and layout.root != EMBEDDED:
        backbone.image_key_model = EMBEDDED_KEYS
        logger.warning(
            "%s makes no image keys, and no CLIPModel is named (--clip): the shipped embedded CLIP "
            "makes them, which was trained on drawn emblems only",
            backbone.architecture,
        )
    if eyes is not None and layout.root == EMBEDDED:
        backbone.see_with(eyes)
    rehearse(backbone)
    return backbone


def _outlined(backbone_class: type[Backbone], folder: Path, *, trust_remote_code: bool) -> None:
    """Put the model together without its weights, and write a row."""
    try:
        with reading(folder):
            lay_out_once(backbone_class.outline(folder, trust_remote_code=trust_remote_code))
    except RequestError as error:
        raise CheckpointUnsupported(f"{folder} takes no usual picture: {error.message}") from error
    except (AttributeError, IndexError, ArithmeticError) as error:
        logger.debug("%s cannot be put together", folder, exc_info=True)
        raise CheckpointCorrupt(
            f"{folder}: configuration, processor and tokenizer do not fit each other: {error}"
        ) from error


def _clip_of(
    layout: CheckpointLayout, backbone_class: type[Backbone], clip: Path | None
) -> Path | None:
    """The folder of the CLIPModel that makes the image keys; None where the backbone does."""
    if clip is not None and not (clip / "config.json").is_file():
        raise CheckpointMissing(
            f"{clip} holds no CLIPModel: config.json is not there",
            hint="Name the folder of a CLIPModel (--clip), or leave it out.",
        )
    found = layout.clip or clip
    if found is None and not backbone_class.makes_own_keys:
        found = CheckpointLayout(EMBEDDED).clip
    return found


def backbone_fingerprint(
    layout: CheckpointLayout,
    *,
    clip: Path | None = None,
    quantization: str = "none",
    parts: Path | None = None,
) -> str:
    """What `load_backbone` would give the model of `layout`, told from its files alone."""
    return _fingerprint(layout, _clip_of(layout, family_of(layout), clip), quantization, parts)


def _fingerprint(
    layout: CheckpointLayout, clip: Path | None, quantization: str, parts: Path | None
) -> str:
    """The model's name: that of its contents, or the one that its parts were made under.

    Earlier releases named a model by the bytes of all its files; whatever was made for that name
    is still valid.
    """
    folders = (layout.model, *([clip] if clip else []))
    name = _quantised(fingerprint_contents(*folders), quantization)
    known = _known_names(layout, parts)
    if known and name not in known:
        earlier = _quantised(fingerprint_files(*folders), quantization)
        return earlier if earlier in known else name
    return name


def _known_names(layout: CheckpointLayout, parts: Path | None) -> set[str]:
    """Backbones that parts beside the model, or in the folder of measured ones, were made for."""
    found = set()
    for part in ("router", *EDITORS):
        description = layout.root / f"{part}.json"
        if description.is_file():
            try:
                found.add(json.loads(description.read_text("utf-8"))["backbone_fingerprint"])
            except (ValueError, KeyError, TypeError):
                continue  # whoever loads the part says what is wrong with it
    if parts is not None and parts.is_dir():
        found |= {f"sha256:{folder.name}" for folder in parts.iterdir() if folder.is_dir()}
    return found


def _quantised(name: str, quantization: str) -> str:
    """Other states than those of the same files unquantised: parts and edits do not carry over."""
    if quantization == "none":
        return name
    return f"sha256:{hashlib.sha256(f'{name} {quantization}'.encode()).hexdigest()}"


def _download(name: str, files: list[str], *, revision: str | None) -> Path:
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=files))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        which = name if revision is None else f"{name} at {revision}"
        raise CheckpointMissing(
            f"there is no checkpoint {which!r}: no such folder, and the hub gave none ({error})",
            hint="Check the path or hub id, the revision, and the network.",
        ) from error
