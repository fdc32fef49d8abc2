"""Where a model's router and editors come from: its checkpoint, else what was measured of it.

    <parts>/<backbone fingerprint>/     one folder for each backbone, see `folder_of`
        router.safetensors/.json        measured at its first start, where nothing was trained
        <editor>.safetensors/.json      likewise
        calibration.json                thresholds measured anew (`errata calibrate`)

A checkpoint that brings a router is taken as complete: of what it lacks only what is asked for by
name is measured. One without any, as Hugging Face's are, gets every part that can be measured.
Edits depend on measured parts as they do on trained ones: keep the folder with the database.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from editing_core.backbones.base import Backbone
from editing_core.backbones.loading import backbone_fingerprint
from editing_core.checkpoint import CheckpointLayout
from editing_core.editors.base import Editor
from editing_core.errors import CheckpointCorrupt, CheckpointError, CheckpointMissing
from editing_core.experts.weights import read_description, write_description
from editing_core.registry import EDITORS, MEASURED
from editing_core.routing.base import RouterBase, load_router
from editing_core.types import Notify

DEFAULT_EDITORS = ("liveedit", "fitted")
"""The first of these that a model has is used where none is named."""

_ROUTER = "router"
_CALIBRATION = "calibration"
# By name: it draws pictures, and so stands above everything that serves.
_MEASURE = "editing_core.first_start.measure"

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """A router and editors that were made for one backbone."""

    router: RouterBase
    editors: dict[str, Editor]


@dataclass(frozen=True, slots=True)
class PartFingerprints:
    """Identity of each part of a model; editors by name, those that it has."""

    backbone: str
    router: str
    editors: dict[str, str]


def part_fingerprints(
    layout: CheckpointLayout,
    *,
    parts: Path,
    clip: Path | None = None,
    quantization: str = "none",
) -> PartFingerprints:
    """What loading `layout` would find, told from its files: no weights are loaded.

    Raises `CheckpointMissing` when it has no router, trained or measured, and what
    `backbone_fingerprint` raises.
    """
    backbone = backbone_fingerprint(layout, clip=clip, quantization=quantization, parts=parts)
    places = [layout, CheckpointLayout(_folder(parts, backbone))]

    def described(name: str) -> str:
        _, description = _part(name, places)
        try:
            return str(json.loads(description.read_text("utf-8"))["fingerprint"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointCorrupt(f"{description} is damaged: {error!r}") from error

    editors = {n: described(n) for n in EDITORS if any(place.has(n) for place in places)}
    return PartFingerprints(backbone, described(_ROUTER), editors)


def folder_of(parts: Path, backbone: Backbone) -> Path:
    """Where the parts measured of this backbone lie, whether there are any or not."""
    return _folder(parts, backbone.fingerprint)


def _folder(parts: Path, fingerprint: str) -> Path:
    return parts / fingerprint.removeprefix("sha256:")


def default_editor(loaded: Sequence[str]) -> str | None:
    """The editor to use where none is named: a trained one first; None if no editor fits."""
    return next((name for name in DEFAULT_EDITORS if name in loaded), None)


def load_parts(
    layout: CheckpointLayout,
    backbone: Backbone,
    *,
    editors: Sequence[str] | None,
    where_there: Sequence[str] = (),
    parts: Path | None = None,
    notify: Notify | None = None,
) -> Parts:
    """Load a router and `editors`, and those of `where_there` that can be had without measuring.

    With `editors` None it is the default one, if there is any. What the checkpoint lacks is read
    from the backbone's folder under `parts`, and measured into it where it is not there yet, or is
    damaged.

    Raises `CheckpointMissing` naming a part that is neither there nor can be measured,
    `CheckpointCorrupt` and `FingerprintMismatch` on damaged files, `LookupError` on an unknown
    editor.
    """
    places = [layout]
    if parts is not None:
        folder = folder_of(parts, backbone)
        places.append(CheckpointLayout(folder))
        wanted = MEASURED if not layout.has(_ROUTER) else (editors or ())
        lacking = [n for n in MEASURED if n in wanted and not any(p.has(n) for p in places)]
        if lacking:
            importlib.import_module(_MEASURE).measure_parts(backbone, folder, lacking, notify)
    names = list(editors or ())
    if editors is None:
        default = default_editor([n for n in DEFAULT_EDITORS if any(p.has(n) for p in places)])
        names = [default] if default else []
    names += [name for name in where_there if any(place.has(name) for place in places)]

    def read(name: str, load: Callable[[Path, Path], T]) -> T:
        try:
            return load(*_part(name, places))
        except CheckpointError as error:
            if parts is None or name not in MEASURED or layout.has(name):
                raise
            logger.warning("%s is measured again: %s", name, error.message)
            importlib.import_module(_MEASURE).measure_parts(backbone, folder, [name], notify)
            return load(*_part(name, places))

    router = read(_ROUTER, load_router)
    loaded: dict[str, Editor] = {}
    for name in dict.fromkeys(names):
        loaded[name] = read(name, EDITORS.resolve(name).load)
    if parts is not None:
        router = _calibrated(router, folder / f"{_CALIBRATION}.json")
    return Parts(router, loaded)


def save_calibration(router: RouterBase, parts: Path, backbone: Backbone) -> Path:
    """Write the router's thresholds and figures beside the backbone's measured parts.

    The router's own files are not touched: they may lie in a package. Returns the file.
    """
    file = folder_of(parts, backbone) / f"{_CALIBRATION}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_description(
        file,
        {
            "kind": _CALIBRATION,
            "config": {"router": router.fingerprint},
            "thresholds": asdict(router.thresholds),
            "figures": router.figures,
        },
    )
    return file


def _calibrated(router: RouterBase, file: Path) -> RouterBase:
    """The router under the thresholds of `file`, if there are any and they are for its keys."""
    if not file.is_file():
        return router
    document = read_description(file, kind=_CALIBRATION)
    if document["config"].get("router") != router.fingerprint:
        logger.warning("%s is for another router and is left aside: calibrate again", file)
        return router
    try:
        made = router.with_figures(document["figures"], **document["thresholds"])
    except (KeyError, TypeError) as error:
        raise CheckpointCorrupt(f"{file} has a bad threshold: {error}") from error
    logger.info("thresholds are those of %s", file)
    return made


def _part(name: str, places: Sequence[CheckpointLayout]) -> tuple[Path, Path]:
    """A part's two files, of the first place that has it."""
    for place in places:
        if place.has(name):
            return place.part(name)
    if name in MEASURED and len(places) == 1:
        raise CheckpointMissing(
            f"checkpoint {places[0].root} has no {name}.safetensors",
            hint=f"Train it (errata train), or name a folder for measured parts, where one without "
            f"training is made (errata serve does; in Python, EditableModel.load(parts=...)). "
            f"Or choose a checkpoint that has a {name}.",
        )
    return places[0].part(name)
