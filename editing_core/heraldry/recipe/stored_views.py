"""Draws the views that a stage trains on, once, into a file that every epoch reads again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from editing_core.heraldry.drawing import CANVAS, OUTSIDE, coverage, draw_emblem
from editing_core.heraldry.emblem import (
    Charge,
    Emblem,
    Split,
    emblem_from_seed,
    stream,
    twin,
)
from editing_core.heraldry.views import VIEW_SIZE, render_view

GRID = 8


class StoredViews:
    """Views of emblems on disk: `images [emblems, views, 96, 96, 3]` uint8, `coverage [emblems,
    views, 8, 8, 6]` uint8 (pixels of each region in each patch), and the emblems themselves.

    Emblem 2g+1 is the twin of emblem 2g when drawn with twins.
    """

    def __init__(self, folder: Path) -> None:
        self.images: NDArray[np.uint8] = np.load(folder / "images.npy", mmap_mode="r")
        self.coverage: NDArray[np.uint8] = np.load(folder / "coverage.npy", mmap_mode="r")
        self.emblems = [
            emblem_from_json(line) for line in (folder / "emblems.jsonl").read_text().splitlines()
        ]


def draw_views(
    folder: Path,
    emblems: list[tuple[Emblem, int]],
    *,
    split: Split,
    views: int,
    first_view: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> StoredViews:
    """Draw `views` training views of each `(emblem, number)` unless the folder is complete."""
    if not (folder / "emblems.jsonl").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shape = (len(emblems), views, VIEW_SIZE, VIEW_SIZE, 3)
        images = np.lib.format.open_memmap(
            folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape
        )
        covered = np.lib.format.open_memmap(
            folder / "coverage.npy",
            mode="w+",
            dtype=np.uint8,
            shape=(len(emblems), views, GRID, GRID, 6),
        )
        for index, (emblem, number) in enumerate(emblems):
            drawn = draw_emblem(emblem)
            for view in range(views):
                seen = render_view(*drawn, stream(split, number, first_view + view, 2))
                images[index, view] = seen.image
                covered[index, view] = coverage(seen.regions, GRID)
            if progress and index % 500 == 499:
                progress(index + 1, len(emblems))
        images.flush()
        covered.flush()
        # Written last: its presence says that the views are complete.
        lines = "\n".join(json.dumps(asdict(emblem)) for emblem, _ in emblems)
        (folder / "emblems.jsonl").write_text(lines)
    return StoredViews(folder)


def draw_backdrops(path: Path, count: int, *, seed: int) -> NDArray[np.uint8]:
    """Pictures without an emblem, `uint8 [count, 96, 96, 3]`."""
    if not path.exists():
        nothing = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
        nowhere = Image.new("L", (CANVAS, CANVAS), OUTSIDE)
        part = path.with_suffix(".part.npy")
        rngs = (stream("train", seed, number, 13) for number in range(count))
        np.save(part, np.stack([render_view(nothing, nowhere, rng).image for rng in rngs]))
        part.replace(path)
    return np.load(path)  # type: ignore[no-any-return]


def twin_groups(split: Split, numbers: range) -> Iterator[tuple[Emblem, int]]:
    """Each emblem followed by its one-attribute twin, with a number of its own for its views."""
    for number in numbers:
        emblem = emblem_from_seed(number, split)
        yield emblem, 2 * number
        yield twin(emblem, stream(split, number, 0, 3))[0], 2 * number + 1


def emblem_from_json(line: str) -> Emblem:
    """The emblem that `dataclasses.asdict` and JSON made a line of."""
    fields = json.loads(line)
    fields["charges"] = tuple(Charge(**charge) for charge in fields["charges"])
    return Emblem(**fields)
