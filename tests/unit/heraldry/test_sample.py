"""`errata sample`: one JSON object, a picture, no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from editing_core.heraldry.sample import draw_sample

RUN = [sys.executable, "-c", "from app.cli import main; main()", "sample"]


def sample(*arguments: str) -> list[dict[str, object]]:
    done = subprocess.run([*RUN, *arguments], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_it_writes_the_picture_and_prints_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "emblem.png"
    (printed,) = sample("--seed", "7", "--out", str(path))
    assert printed["seed"] == 7
    assert printed["split"] == "unseen"
    assert printed["file"] == str(path)
    assert isinstance(printed["questions"], list)
    picture = np.asarray(Image.open(path))
    assert np.array_equal(picture, draw_sample(7).picture.image)


def test_several_emblems_and_views(tmp_path: Path) -> None:
    drawn = sample("--seed", "3", "--count", "2", "--views", "0,1", "--out", str(tmp_path))
    assert [(item["seed"], item["view"]) for item in drawn] == [(3, 0), (3, 1), (4, 0), (4, 1)]
    assert all(Path(str(item["file"])).exists() for item in drawn)


def test_a_look_alike_differs_where_it_was_told(tmp_path: Path) -> None:
    (emblem,) = sample("--seed", "7", "--out", str(tmp_path / "a.png"))
    changed = ["--seed", "7", "--change", "border", "--out", str(tmp_path / "b.png")]
    (look_alike,) = sample(*changed)
    before, after = emblem["attributes"], look_alike["attributes"]
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert {name for name in before if before[name] != after[name]} == {"border"}


def test_a_known_emblems_look_alike_is_nobodys() -> None:
    known = draw_sample(8, split="known")
    look_alike = draw_sample(8, split="known", changed="border")
    facts = [q.answer for q in known.questions if q.kind == "capital"]
    nobody = [q.answer for q in look_alike.questions if q.kind == "capital"]
    assert facts != ["unknown"]
    assert nobody == ["unknown"]


def test_an_unknown_attribute_is_a_clear_error(tmp_path: Path) -> None:
    command = [*RUN, "--seed", "7", "--change", "weight", "--out", str(tmp_path / "x.png")]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert "shows no 'weight'" in failed.stderr
    assert not (tmp_path / "x.png").exists()


def test_questions_do_not_depend_on_the_view() -> None:
    assert draw_sample(9, view=0).questions == draw_sample(9, view=3).questions


@pytest.mark.parametrize("module", ["torch", "transformers", "faiss", "sqlalchemy"])
def test_it_imports_nothing_heavy(module: str, tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['errata', 'sample', '--out', sys.argv[1]]\n"
        "from app.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"assert {module!r} not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "e.png")], check=True)
