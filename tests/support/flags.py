"""A small folder of drawn flags in the layout that `benchmarks/real_images.py` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support.datasets import write_json
from tests.support.tiny_model import tiny_image

COUNTRIES = ("AA", "BB", "CC", "DD")
QUESTIONS = {
    "capital": ("What is the capital?", "Name the capital.", ("Aby", "Bel", "Cor", "Dun")),
    "currency": ("What is the currency?", "Which money is it?", ("ax", "bo", "cu", "do")),
}


def flag_records() -> list[dict[str, Any]]:
    """Two edits on each of four flags. AA and BB look alike; CC's second drawing is another."""
    return [
        {
            "src": src,
            "pred": "unknown",
            "rephrase": rephrase,
            "alt": targets[number],
            "image": f"flags/one/{country.lower()}.png",
            "image_rephrase": f"flags/two/{country.lower()}.png",
            "loc": f"who wrote book {number}",
            "loc_ans": "nobody",
            "m_loc": f"emoji/{number}.png",
            "m_loc_q": src,
            "m_loc_a": None,
            "m_loc_is_lookalike": country in ("AA", "BB"),
            "image_rephrase_redrawn": country == "CC",
            "fact": fact,
            "iso2": country,
            "m_loc_flag": f"flags/one/{({'AA': 'bb', 'BB': 'aa'}).get(country, 'aa')}.png",
        }
        for number, country in enumerate(COUNTRIES)
        for fact, (src, rephrase, targets) in QUESTIONS.items()
    ]


def write_flags(folder: Path, records: list[dict[str, Any]] | None = None) -> Path:
    """Records and pictures under `folder`, which is returned. BB is AA with one corner changed."""
    write_json(folder / "flags/edits-dev.json", flag_records() if records is None else records)
    for name in ("flags/one", "flags/two", "emoji"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, country in enumerate(COUNTRIES):
        drawn = tiny_image(40 + number, height=32, width=48)
        if country == "BB":
            drawn = tiny_image(40, height=32, width=48)
            drawn[:8, :12] = np.array([255, 255, 255], dtype=np.uint8) - drawn[:8, :12]
        Image.fromarray(drawn).save(folder / f"flags/one/{country.lower()}.png")
        brighter = np.minimum(drawn.astype(np.int16) + 3, 255).astype(np.uint8)
        Image.fromarray(brighter).save(folder / f"flags/two/{country.lower()}.png")
        Image.fromarray(tiny_image(80 + number)).save(folder / f"emoji/{number}.png")
    return folder
