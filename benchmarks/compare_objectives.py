"""Train one editor under several objectives, alike in all else, and say how to put them in a table.

    python -m benchmarks.compare_objectives --editor liveedit --steps 500 --out runs/objectives
    python -m benchmarks.compare_objectives --editor visedit --steps 300 --start VISEDIT.safetensors

Every arm sees the same prefixes, the same seed and as many steps. Under the editor's own recipe
`liveedit` is its own objective; `same_data` sees the rows that ODEdit sees, without MMD and without
penalty: what it lacks of `odedit`'s figures is due to the method, and not to more data. The other
arms are ODEdit without one term each. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from editing_core.backbones.loading import find_checkpoint, load_backbone
from editing_core.config import Placement
from editing_core.training.recipes import EditorRecipe, gather, read_recipe, train_editor

logger = logging.getLogger("compare_objectives")

FORMS = {"liveedit": "aligned", "visedit": "adapter"}
ARMS: dict[str, tuple[str, Mapping[str, Any]] | None] = {
    "own": None,
    "same_data": ("same_data", {}),
    "odedit": ("odedit", {}),
    "without_rel": ("odedit", {"rel": 0.0}),
    "without_loc": ("odedit", {"loc": 0.0}),
    "without_mmd": ("odedit", {"gen": 0.0}),
    "without_paired": ("odedit", {"paired": 0.0}),
    "without_penalty": ("odedit", {"fixed_lambda": 0.0}),
    "fixed_lambda": ("odedit", {"fixed_lambda": 0.1}),
    "high_cap": ("odedit", {"cap": 5.0}),
}
"""An objective and its settings; None is the recipe's own."""


def arm_of(recipe: EditorRecipe, arm: str) -> EditorRecipe:
    """The recipe under an arm's objective."""
    chosen = ARMS[arm]
    if chosen is None:
        return recipe
    return replace(recipe, objective=chosen[0], objective_settings=chosen[1])


def main() -> None:
    """Train each arm into `OUT/<editor>-<arm>`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--editor", choices=sorted(FORMS), default="liveedit")
    parser.add_argument("--arms", default=",".join(ARMS), help="by commas; default: all")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--subjects", type=int, help="emblems to train on (default: the recipe's)")
    parser.add_argument("--start", type=Path, help="an editor's weights to begin with")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    arms = [arm for arm in given.arms.split(",") if arm]
    if unknown := set(arms) - set(ARMS):
        parser.error(f"unknown arms: {', '.join(sorted(unknown))}; known: {', '.join(ARMS)}")

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    backbone = load_backbone(find_checkpoint(None), Placement.resolve())
    settings = read_recipe(given.editor, "heraldry", FORMS[given.editor], steps=given.steps)
    recipe = EditorRecipe(**settings)
    if given.editor == "visedit":  # what was learned is compared, without what is fitted later
        recipe = replace(recipe, shape={**recipe.shape, "max_steps": 0})
    if given.subjects:
        recipe = replace(recipe, subjects=given.subjects)
    material = gather(backbone, recipe)
    for arm in arms:
        folder = given.out / f"{given.editor}-{arm}"
        if any(folder.glob("*.json")):
            logger.info("%s: done before", folder)
            continue
        began = time.monotonic()
        train_editor(
            backbone,
            arm_of(recipe, arm),
            out=given.out / "unfinished",
            work=given.out / "work" / f"{given.editor}-{arm}",
            material=material,
            start=given.start,
            report=lambda share, step, figures: logger.info("%d %s", step, json.dumps(figures)),
        )
        shutil.move(given.out / "unfinished", folder)
        logger.info("%s: %.0f s", folder, time.monotonic() - began)
    also = " ".join(f"--also {given.editor}-{a}={given.out}/{given.editor}-{a}" for a in arms)
    logger.info("now: errata bench --editors unedited %s", also.replace("_", "-"))


if __name__ == "__main__":
    main()
