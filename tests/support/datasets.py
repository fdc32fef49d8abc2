"""Three-record datasets in the published layouts, with pictures drawn here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.tiny_model import tiny_image


def record(number: int, **changes: Any) -> dict[str, Any]:
    """One record of the common eleven keys; its pictures are those of entity `number`."""
    return {
        "src": f"Which town is number {number}?",
        "pred": f"Old_Town,_No_{number}",
        "rephrase": f"Name town {number}.",
        "alt": f" Newtown {number}\n",
        "image": f"m.0{number}/bing_0.jpg",
        "image_rephrase": f"m.0{number}/google_1.jpg",
        "loc": f"who wrote book {number}",
        "loc_ans": f"Author {number}",
        "m_loc": f"m.1{number}/yahoo_0.jpg",
        "m_loc_q": "Which river is this?",
        "m_loc_a": "the Elbe",
    } | changes


def three(**changes: Any) -> list[dict[str, Any]]:
    return [record(number, **changes) for number in (1, 2, 3)]


def draw(folder: Path, paths: Sequence[str]) -> None:
    """A small picture at each path, every one different."""
    for number, path in enumerate(paths):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        kind = "PNG" if file.suffix == ".png" else "JPEG"
        Image.fromarray(tiny_image(number, height=24, width=32)).save(file, kind)


def pictures_of(records: Sequence[Mapping[str, Any]]) -> list[str]:
    paths = [row[key] for row in records for key in ("image", "image_rephrase", "m_loc")]
    return list(dict.fromkeys(paths))


def write_json(file: Path, records: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(records), encoding="utf-8")
    return file


def write_dataset(
    folder: Path, records: list[dict[str, Any]], *, file: str = "eval.json", images: str = "."
) -> Path:
    """Records and their pictures in one folder, which is returned."""
    write_json(folder / file, records)
    draw(folder / images, pictures_of(records))
    return folder
