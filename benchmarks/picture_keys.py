"""Which pictures take each other for the same: keys and sketches alone, before any question.

    python -m benchmarks.picture_keys --data PATH [--eyes none] [--keys-only] [--limit N]

Worlds: photographs of products (PATH/grocery), pictograms (PATH/emoji), flags (PATH/flags) and
unseen emblems. `taken`: the share of pictures nobody edited that pass `tau` of any of the edited
ones, and the eyes' judge where there is one (not with --keys-only). Flags are parted by the
distance of the nearest edited one, as in `benchmarks.scope`. The other columns are shares of the
edited pictures that are found again after one change, and of flags also in another drawing, of
emblems in another view.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.flags import read_flags
from benchmarks.report import table
from editing_core.editable_model import EditableModel
from editing_core.evaluation.datasets.pictures import read_picture
from editing_core.heraldry.emblem import emblem_from_seed
from editing_core.heraldry.views import view_of as emblem_view
from editing_core.training.eye_views import CHANGES, view_of
from editing_core.types import ImageArray, PictureKey

_EDITED, _CHANGED = 60, 60
_FIRST_EMBLEM = 930_000
_BINS = ((28.0, 256.0), (20.0, 28.0), (8.0, 20.0), (0.0, 8.0))


@dataclass(frozen=True, eq=False)
class World:
    """Pictures that are edited, others by name, and other copies of the edited ones."""

    edited: Sequence[ImageArray]
    others: Mapping[str, Sequence[ImageArray]]
    again: Mapping[str, Sequence[ImageArray]] = field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="with grocery, emoji and flags")
    parser.add_argument("--eyes", default="shipped", help="shipped, none, or a folder")
    parser.add_argument("--keys-only", action="store_true", help="leave the eyes' judge out")
    parser.add_argument("--limit", type=int, default=_CHANGED, help="pictures that are changed")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    model = EditableModel.load(editors=(), questions="none", eyes=options.eyes)
    rows = []
    for name, world in _worlds(options.data):
        taken = _taken(model, judged=not options.keys_only)
        rows += [[name, *row] for row in _measured(model, world, options.limit, name, taken)]
    print(table(["pictures", "figure", "n", "share"], rows))
    return 0


Taken = Callable[[PictureKey, Sequence[PictureKey]], NDArray[np.bool_]]


def _taken(model: EditableModel, *, judged: bool) -> Taken:
    """For which of some pictures another one is taken."""
    eyes = model.backbone.eyes if judged else None

    def taken(asked: PictureKey, edited: Sequence[PictureKey]) -> NDArray[np.bool_]:
        cosines = np.stack([each.image for each in edited]) @ asked.image
        found = cosines >= model.router.tau
        near = sorted(np.flatnonzero(found).tolist(), key=lambda i: -cosines[i])
        if eyes is not None:
            found[near] = eyes.same(asked.sketch, [edited[i].sketch for i in near])
        return found

    return taken


def _measured(
    model: EditableModel, world: World, limit: int, name: str, taken: Taken
) -> Iterator[list[str]]:
    def keys(images: Sequence[ImageArray]) -> list[PictureKey]:
        told = track(images, description=name, transient=True)
        return [model.picture_key(image) for image in told]

    def again(images: Sequence[ImageArray]) -> NDArray[np.bool_]:
        pairs = zip(keys(images), own, strict=False)
        return np.array([taken(shown, [edited])[0] for shown, edited in pairs])

    own = keys(world.edited)
    for kind, images in world.others.items():
        if len(images):
            passing = np.array([taken(shown, own).any() for shown in keys(images)])
            yield [kind, str(len(images)), f"{100 * passing.mean():.1f} %"]
    for kind, images in world.again.items():
        found = again(images)
        yield [kind, str(len(images)), f"{100 * found.mean():.1f} %"]
    every = []
    for place, change in enumerate(CHANGES):
        changed = [
            view_of(image, np.random.default_rng([place, i]), only=change)
            for i, image in enumerate(world.edited[:limit])
        ]
        found = again(changed)
        every.append(found)
        yield [f"found again: {change}", str(len(changed)), f"{100 * found.mean():.1f} %"]
    together = np.concatenate(every)
    yield ["found again: all changes", str(len(together)), f"{100 * together.mean():.1f} %"]


def _worlds(data: Path) -> Iterator[tuple[str, World]]:
    yield "photographs", _photographs(data)
    yield "emoji", _emoji(data)
    yield "flags", _flags(data)
    yield "emblems", _emblems()


def _photographs(data: Path) -> World:
    """Every third product is edited in all its photographs but the last; the others are not."""
    photos = json.loads((data / "grocery/labels.json").read_text("utf-8"))["photos"]
    by_name: dict[str, list[str]] = {}
    for photo in photos:
        by_name.setdefault(photo["name"], []).append(photo["file"])
    names = list(by_name)
    edited = [file for name in names[::3] for file in by_name[name][:-1]][:_EDITED]
    others = [file for i, name in enumerate(names) if i % 3 for file in by_name[name]]
    return World(
        [read_picture(data / file) for file in edited],
        {"taken, other products": [read_picture(data / file) for file in others]},
    )


def _emoji(data: Path) -> World:
    listed = json.loads((data / "emoji/names.json").read_text("utf-8"))["emoji"]
    chosen = listed[:: max(1, len(listed) // 400)]
    edited = [read_picture(data / item["file"]) for item in chosen[::2][:_EDITED]]
    others = [read_picture(data / item["file"]) for item in chosen[1::2]]
    return World(edited, {"taken, other emoji": others})


def _flags(data: Path) -> World:
    flags = read_flags(data)
    mine, theirs = flags.halves(0)
    edited = {edit.record.image: edit for edit in mine}
    others: dict[str, list[ImageArray]] = {}
    for low, high in _BINS:
        kind = f"taken, {low:.0f} to {high:.0f} from an edited one"
        others[kind] = [
            read_picture(flags.root / flag)
            for flag in dict.fromkeys(edit.record.image for edit in theirs)
            if low <= flags.nearest(flag, edited)[0] < high
        ]
    again = [read_picture(flags.root / edit.record.image_rephrase) for edit in edited.values()]
    images = [read_picture(flags.root / flag) for flag in edited]
    return World(images, others, {"found again: another drawing": again})


def _emblems() -> World:
    seeds = range(_FIRST_EMBLEM, _FIRST_EMBLEM + 2 * _EDITED)
    first, second = (
        [emblem_view(emblem_from_seed(seed), seed=seed, view=view).image for seed in seeds]
        for view in (0, 1)
    )
    return World(
        first[:_EDITED],
        {"taken, other emblems": first[_EDITED:]},
        {"found again: another view": second[:_EDITED]},
    )


if __name__ == "__main__":
    sys.exit(main())
