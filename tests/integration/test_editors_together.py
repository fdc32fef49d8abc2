"""Edits of two editors in one server: side by side, in one batch, across a restart, and back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from editing_core.evaluation.edit_cases import EditCase, edit_cases
from editing_core.types import ImageArray
from tests.support.server import LiveServer, data_uri, png

EDITORS = ("visedit", "liveedit")
GIVEN = ("reliability", "text generality", "image generality", "both generalities")
LEFT_ALONE = ("text locality", "image locality", "same image, other question")

Asked = tuple[ImageArray | None, str]


@pytest.fixture(scope="module")
def cases() -> list[EditCase]:
    return list(edit_cases(8, seed=11))


def serve(folder: Path) -> LiveServer:
    return LiveServer(Settings.load(data_dir=folder, device="cpu", question_encoder="shipped"))


def ask(server: LiveServer, questions: list[Asked]) -> list[dict[str, Any]]:
    """All at once, so that rows with edits of both editors and of none share batches."""

    def one(asked: Asked) -> dict[str, Any]:
        image, prompt = asked
        shown = None if image is None else data_uri(png(image))
        body = {"image": shown, "prompt": prompt, "max_new_tokens": 64}
        answer: dict[str, Any] = server.client.post("/generate", json=body).json()
        return answer

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, questions))


def questions_of(cases: list[EditCase], kinds: tuple[str, ...]) -> list[Asked]:
    return [(p.image, p.prompt) for case in cases for p in case.probes if p.kind in kinds]


def texts(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["text"] for answer in answers]


def test_edits_of_two_editors_hold_restart_and_roll_back(
    tmp_path: Path, cases: list[EditCase]
) -> None:
    everything = questions_of(cases, GIVEN + LEFT_ALONE)
    given = questions_of(cases, GIVEN)
    wanted = [case.target for case in cases for _ in GIVEN]
    with serve(tmp_path) as server:
        unedited = ask(server, everything)
        made = []
        for number, case in enumerate(cases):
            body = {"image": data_uri(png(case.image)), "prompt": case.prompt}
            body |= {"target": case.target, "editor": EDITORS[number % 2]}
            response = server.client.post("/edits", json=body)
            assert response.status_code == 201, response.text
            made.append(response.json())
        assert [edit["editor"] for edit in made] == list(EDITORS) * 4
        assert all(edit["verified"] for edit in made)
        answers = ask(server, everything)
        # An accepted edit holds; its generality and locality are the benchmark's to measure.
        own = ask(server, questions_of(cases, GIVEN[:1]))
        assert texts(own) == [case.target for case in cases]
        assert [a["applied"][0]["edit_id"] for a in own] == [edit["id"] for edit in made]
        held = [t == w for t, w in zip(texts(ask(server, given)), wanted, strict=True)]
        assert sum(held) >= 0.85 * len(held)
        kept = questions_of(cases, LEFT_ALONE)
        before = dict(zip(map(_key, everything), texts(unedited), strict=True))
        left = [t == before[_key(q)] for q, t in zip(kept, texts(ask(server, kept)), strict=True)]
        assert sum(left) >= 0.9 * len(left)

    with serve(tmp_path) as server:
        assert texts(ask(server, everything)) == texts(answers)
        for edit in made:
            assert server.client.post(f"/admin/edits/{edit['id']}/rollback").status_code == 200
        assert texts(ask(server, everything)) == texts(unedited)


def _key(asked: Asked) -> tuple[bytes, str]:
    image, prompt = asked
    return (b"" if image is None else image.tobytes(), prompt)
