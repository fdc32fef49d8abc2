"""A checkpoint folder: what lies where, and the manifest that proves it undamaged.

    model/                   the VLLM as `save_pretrained` writes it, with its processor
    clip/                    optional: the CLIPModel that makes image keys
    router.safetensors/.json
    <editor>.safetensors/.json
    MANIFEST.json            sha256 of every file that decides what the model computes

A folder (or hub repository) that holds a plain Hugging Face model instead of `model/` is one too:
it has no manifest, and router and editors, if any, lie beside the model's own files.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from editing_core.errors import CheckpointCorrupt, CheckpointMissing
from editing_core.registry import EDITORS

MANIFEST_NAME = "MANIFEST.json"
EMBEDDED = Path(__file__).parent / "pretrained" / "heraldry"

_PARTS = {"router", *EDITORS}
# Files that decide what a model computes. Prose and pictures do not, and may be edited freely.
_WEIGHTS_AND_CONFIG = {".safetensors", ".json", ".jinja", ".model", ".txt"}


@dataclass(frozen=True, slots=True)
class CheckpointLayout:
    """Resolved paths of one checkpoint. Nothing is read yet."""

    root: Path

    @property
    def model(self) -> Path:
        nested = self.root / "model"
        return nested if nested.is_dir() else self.root

    @property
    def clip(self) -> Path | None:
        folder = self.root / "clip"
        return folder if self.model != self.root and folder.is_dir() else None

    @property
    def manifest(self) -> Path:
        return self.root / MANIFEST_NAME

    def has(self, name: str) -> bool:
        """Whether there is a `router`, or an editor of this name."""
        return (self.root / f"{name}.json").is_file()

    def part(self, name: str) -> tuple[Path, Path]:
        """The weights and the description of `router` or of an editor.

        Raises `CheckpointMissing` naming the file that is not there.
        """
        weights, description = self.root / f"{name}.safetensors", self.root / f"{name}.json"
        for path in (weights, description):
            if not path.is_file():
                raise CheckpointMissing(
                    f"checkpoint {self.root} has no {path.name}",
                    hint=f"Train it (errata train), or choose a checkpoint that has a {name}.",
                )
        return weights, description


def write_manifest(root: Path) -> Path:
    """Record the sha256 of every weight and configuration file under `root`.

    Write it last, after every other file: it vouches for the rest.
    """
    files = {path.relative_to(root).as_posix(): _sha256(path) for path in _covered(root)}
    manifest = root / MANIFEST_NAME
    manifest.write_text(json.dumps({"format": 1, "sha256": files}, indent=1) + "\n", "utf-8")
    return manifest


def verify_manifest(root: Path) -> dict[str, str]:
    """Check every weight and configuration file under `root`; return what the manifest lists.

    Raises `CheckpointMissing` when there is no manifest or a listed file is gone, and
    `CheckpointCorrupt`, naming the file, when one differs or is not listed.
    """
    path = root / MANIFEST_NAME
    if not path.is_file():
        raise CheckpointMissing(f"checkpoint {root} has no {MANIFEST_NAME}")
    try:
        listed = json.loads(path.read_text("utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointCorrupt(f"{path} is not a manifest: {error!r}") from error
    if not isinstance(listed, dict):
        raise CheckpointCorrupt(f"{path} is not a manifest: 'sha256' is not an object")
    for name, digest in listed.items():
        file = root / name
        if not file.is_file():
            raise CheckpointMissing(f"{file} is listed in the manifest but is not there")
        if _sha256(file) != digest:
            raise CheckpointCorrupt(f"{file} is not the file that the manifest lists")
    for file in _covered(root):
        if file.relative_to(root).as_posix() not in listed:
            raise CheckpointCorrupt(
                f"{file} is not listed in the manifest",
                hint="Remove the file, or write the manifest again if it belongs there.",
            )
    return dict(listed)


def fingerprint_files(*folders: Path) -> str:
    """The name that releases before gave the model in `folders`: `sha256:...`.

    It covers every file of these kinds, whether loading reads it or not (now: `contents.py`).
    The same bytes give the same fingerprint on every machine, wherever the folders lie. A router or
    an editor that lies beside a plain model is none of it: they are made for it, and it must stay
    the model that they were made for.
    """
    total = hashlib.sha256(b"errata-backbone-v1\n")
    for position, folder in enumerate(folders):
        for path in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if _is_covered(path) and path.stem not in _PARTS:
                total.update(f"{position}/{path.name} {_sha256(path)}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _covered(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if _is_covered(path))


def _is_covered(path: Path) -> bool:
    return path.is_file() and path.suffix in _WEIGHTS_AND_CONFIG and path.name != MANIFEST_NAME


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
