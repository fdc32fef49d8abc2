"""A model that nothing was trained for, from its folder to a correction that is taken back.

The newcomer's story over HTTP, with weights of the real classes that mean nothing: what holds here
holds for no other reason than that it was measured, fitted and verified.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from editing_core.heraldry.emblem import emblem_from_seed
from editing_core.heraldry.views import view_of
from tests.support.server import ServerProcess, png
from tests.support.tiny_families import FAMILIES

PROMPT, TARGET = "What is it?", "the blue star"


@pytest.mark.parametrize("family", ["qwen2_5_vl", "blip-2"])
def test_any_model_is_corrected_and_goes_back(family: str, tmp_path: Path) -> None:
    FAMILIES[family].save(tmp_path / "model")
    arguments = ("--model", tmp_path / "model", "--data-dir", tmp_path / "data", "--device", "cpu")
    seen, elsewhere = emblem(7, view=0), emblem(8, view=0)

    with ServerProcess(*arguments, cwd=tmp_path) as first:
        before = [answer(first, image) for image in (seen, elsewhere, None)]
        made = first.request(
            "POST", "/edits", json={"image": seen, "prompt": PROMPT, "target": TARGET}
        )
        assert made.status_code == 201, made.text
        edit = made.json()
        assert (edit["editor"], edit["after"], edit["verified"]) == ("fitted", TARGET, True)
        after = [answer(first, image) for image in (seen, elsewhere, None)]
        versions = first.request("GET", "/versions").json()

    assert before[0]["text"] != TARGET
    assert after[0]["text"] == TARGET
    assert [a["edit_id"] for a in after[0]["applied"]] == [edit["id"]]
    for then, now in zip(before[1:], after[1:], strict=True):
        assert (now["text"], now["applied"]) == (then["text"], [])
    assert versions["editors"]["fitted"]["default"] is True
    assert 0 < versions["router"]["tau"] < 1

    with ServerProcess(*arguments, cwd=tmp_path) as second:
        assert "first start" not in "".join(second.lines)
        assert answer(second, seen)["text"] == TARGET
        undone = second.request("POST", f"/admin/edits/{edit['id']}/rollback", json={})
        assert undone.status_code == 200, undone.text
        assert answer(second, seen)["text"] == before[0]["text"]
        again = second.request("POST", f"/admin/edits/{edit['id']}/reinstate", json={})
        assert again.status_code == 200, again.text
        assert answer(second, seen)["text"] == TARGET


def emblem(seed: int, *, view: int) -> str:
    """A picture as a data URI."""
    drawn = view_of(emblem_from_seed(seed, "unseen"), seed=seed, view=view, split="unseen")
    return f"data:image/png;base64,{base64.b64encode(png(drawn.image)).decode()}"


def answer(server: ServerProcess, image: str | None) -> dict[str, Any]:
    """What is said of a picture, or of none."""
    body = {"image": image, "prompt": PROMPT, "max_new_tokens": 8}
    asked = server.request("POST", "/generate", json=body)
    assert asked.status_code == 200, asked.text
    found: dict[str, Any] = asked.json()
    return found
