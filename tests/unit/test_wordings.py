"""Which edits a question means: the nearest wording speaks, a nearer `not_for` forbids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from editing_core.questions.encoder import GateLine
from editing_core.questions.known import Judged, Keys
from editing_core.routing.wordings import match

ANGLES = {"prompt": 0.0, "rephrase": 60.0, "near": 10.0, "between": 40.0, "far": 120.0, "not": 20.0}
LINE = GateLine(10.0, -5.0, {"precision": 0.9, "balanced": 0.5, "recall": 0.1}, 0.5)


def direction(degrees: float) -> NDArray[np.float32]:
    angle = np.radians(degrees)
    return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)


class Compass:
    """An encoder whose texts are directions."""

    def __init__(self, known: Told | None) -> None:
        self.line, self.known = LINE, known

    def gate_scores(self, cosines: Tensor) -> Tensor:
        return LINE.slope * cosines + LINE.bias

    def query_keys(self, question: str) -> NDArray[np.float32]:
        return self.keys([question])

    def keys(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([direction(ANGLES[text]) for text in texts])


@dataclass(frozen=True)
class Told:
    """A table that says the same of every question and edit."""

    same: float
    excluded: bool

    def judge(self, queries: Keys, own: Keys, prompts: Keys, which: NDArray[np.int64]) -> Judged:
        assert len(own) == len(which)
        assert which.max() < len(prompts)
        return Judged(np.full_like(own, self.same), np.full(len(own), self.excluded))


@dataclass(frozen=True)
class Edit:
    wordings: tuple[str, ...] = ("prompt",)
    not_for: tuple[str, ...] = ()


def matched(question: str, *edits: Edit, known: Told | None = None) -> Any:
    return match(cast(Any, Compass(known)), question, edits, prefer="balanced")


def test_the_nearest_wording_speaks_for_an_edit() -> None:
    found = matched("between", Edit(("prompt", "rephrase")), Edit())
    assert found.matched == ("rephrase", "prompt")
    assert float(found.scores[0]) > float(found.scores[1])
    assert found.passes.tolist() == [True, True]


def test_a_question_that_is_far_passes_no_gate() -> None:
    assert matched("far", Edit()).passes.tolist() == [False]


def test_a_nearer_question_to_leave_alone_excludes_its_edit_alone() -> None:
    found = matched("between", Edit(not_for=("not",)), Edit(("prompt",), ("far",)))
    assert found.excluded.tolist() == [True, False]
    assert found.passes.tolist() == [False, True]


def test_the_prompt_itself_is_never_excluded() -> None:
    assert matched("prompt", Edit(not_for=("near",))).passes.tolist() == [True]


def test_what_is_known_may_speak_for_an_edit_or_put_it_out() -> None:
    assert matched("far", Edit()).passes.tolist() == [False]
    assert matched("far", Edit(), known=Told(0.9, False)).passes.tolist() == [True]
    found = matched("near", Edit(), known=Told(0.9, True))
    assert found.excluded.tolist() == [True]
    assert found.passes.tolist() == [False]
