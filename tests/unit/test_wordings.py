"""Which edits a question means: the nearest wording speaks, a nearer `not_for` forbids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from editing_core.questions.encoder import GateLine, QuestionEncoder
from editing_core.questions.known import KnownQuestions, load_known, save_known
from editing_core.routing.wordings import match

ANGLES = {"prompt": 0.0, "rephrase": 60.0, "near": 10.0, "between": 40.0, "far": 120.0, "not": 20.0}
LINE = GateLine(10.0, -5.0, {"precision": 0.9, "balanced": 0.5, "recall": 0.1}, 0.5)


def direction(degrees: float) -> NDArray[np.float32]:
    angle = np.radians(degrees)
    return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)


class Compass:
    """An encoder whose texts are directions."""

    def __init__(self, known: KnownQuestions | None = None) -> None:
        self._encoder = QuestionEncoder(
            cast(Any, _Network()), None, line=LINE, fingerprint="f", known=known
        )
        self.line = LINE
        self.gate_scores, self.not_for = self._encoder.gate_scores, self._encoder.not_for

    def query_keys(self, question: str) -> NDArray[np.float32]:
        return self.keys([question])

    def keys(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([direction(ANGLES[text]) for text in texts])


class _Network:
    class config:  # noqa: N801 - as transformers names it
        hidden_size = 2

    def eval(self) -> _Network:
        return self


@dataclass(frozen=True)
class Edit:
    wordings: tuple[str, ...] = ("prompt",)
    not_for: tuple[str, ...] = ()


def matched(question: str, *edits: Edit, known: KnownQuestions | None = None) -> Any:
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


def test_what_a_known_question_is_confused_with_is_left_alone() -> None:
    centres, others = direction(5.0)[None], direction(40.0)[None, None]
    known = KnownQuestions(centres, others, least=0.9)
    assert matched("between", Edit(), known=known).excluded.tolist() == [True]
    assert matched("near", Edit(), known=known).excluded.tolist() == [False]
    # A prompt that no intent is near has no such questions.
    assert matched("between", Edit(("rephrase",)), known=known).excluded.tolist() == [False]


def test_known_questions_survive_the_disk(tmp_path: Any) -> None:
    centres = np.stack([direction(5.0), direction(90.0)])
    others = np.stack([[direction(40.0)], [direction(70.0)]])
    save_known(tmp_path / "known.safetensors", centres, others)
    known = load_known(tmp_path / "known.safetensors", dim=2, least=0.9)
    np.testing.assert_allclose(known.not_for(direction(88.0)), others[1], atol=1e-2)
    assert len(known.not_for(direction(200.0))) == 0
