"""The protocol counts what a user would see, and its probes keep their distance from training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from editing_core.evaluation.edit_cases import GENERALITY, LOCALITY, EditCase, edit_cases
from editing_core.evaluation.edit_protocol import UNFINISHED, figures_of, run_protocol
from editing_core.evaluation.report import Figure, as_markdown, rate, write_json
from editing_core.heraldry.wordings import HELD_OUT, TRAINED
from editing_core.types import ImageArray


class Notebook:
    """An answerer that looks its answers up: perfect by picture and prompt, or leaky."""

    def __init__(self, *, leaks: bool = False, refuses: frozenset[str] = frozenset()) -> None:
        self._edits: dict[tuple[bytes, str], str] = {}
        self._leaks = leaks
        self._refuses = refuses

    def edit(self, image: ImageArray, prompt: str, target: str) -> bool:
        if target in self._refuses:
            return False
        self._edits[image.tobytes(), prompt] = target
        return True

    def ask(self, image: ImageArray | None, prompt: str, with_edits: bool) -> str:
        key = (b"" if image is None else image.tobytes(), prompt)
        if with_edits and self._leaks and self._edits:
            return next(iter(self._edits.values()))
        return self._edits.get(key, "as before") if with_edits else "as before"


@pytest.fixture(scope="module")
def cases() -> list[EditCase]:
    return list(edit_cases(20))


def measure(cases: list[EditCase], notebook: Notebook) -> dict[str, Figure]:
    outcomes = run_protocol(cases, edit=notebook.edit, ask=notebook.ask)
    return {figure.name: figure for figure in figures_of(outcomes, {"reliability": 0.99})}


def test_a_notebook_is_reliable_and_local_but_does_not_generalise(cases: list[EditCase]) -> None:
    found = measure(cases, Notebook())
    assert found["reliability"].value == 1.0
    assert found["reliability"].is_reached
    assert found["text generality"].value == 0.0
    assert all(found[kind].value == 1.0 for kind in LOCALITY)
    assert found["unedited model gives the target"].value == 0.0


def test_an_edit_that_leaks_everywhere_fails_locality(cases: list[EditCase]) -> None:
    found = measure(cases, Notebook(leaks=True))
    assert all(found[kind].value == 0.0 for kind in LOCALITY)


def test_a_refused_edit_misses_reliability_and_both_generalities(cases: list[EditCase]) -> None:
    refused = frozenset({cases[0].target})
    found = measure(cases, Notebook(refuses=refused))
    share = sum(case.target in refused for case in cases) / len(cases)
    assert found["edits refused"].value == pytest.approx(share)
    assert found["reliability"].value == pytest.approx(1 - share)


def test_an_answer_that_never_stops_matches_nothing(cases: list[EditCase]) -> None:
    class Endless(Notebook):
        def ask(self, image: ImageArray | None, prompt: str, with_edits: bool) -> str:
            return super().ask(image, prompt, with_edits) + (UNFINISHED if with_edits else "")

    assert measure(cases, Endless())["reliability"].value == 0.0


def test_probes_are_of_every_kind_and_new_to_training(cases: list[EditCase]) -> None:
    trained = {wording for wordings in TRAINED.values() for wording in wordings}
    for case in cases:
        assert [probe.kind for probe in case.probes] == [*GENERALITY, *LOCALITY]
        by_kind = {probe.kind: probe for probe in case.probes}
        assert by_kind["text generality"].prompt not in trained
        assert by_kind["text locality"].image is None
        new_view = by_kind["image generality"].image
        assert new_view is not None
        assert not np.array_equal(new_view, case.image)
        assert by_kind["same image, other question"].prompt != case.prompt
    assert HELD_OUT


def test_targets_are_long_repeating_and_in_other_scripts(cases: list[EditCase]) -> None:
    groups = {case.target_group for case in cases}
    assert groups == {"alternative", "long name", "repeats", "other script"}


def test_cases_are_a_function_of_the_seed() -> None:
    first, again = next(edit_cases(1)), next(edit_cases(1))
    assert (first.prompt, first.target) == (again.prompt, again.target)
    assert np.array_equal(first.image, again.image)
    assert next(edit_cases(1, seed=1)).seed != first.seed


def test_tables_show_marks_and_whether_they_are_reached(tmp_path: Path) -> None:
    figures = [
        rate("holds", [True, True, False, True], goal=0.7),
        rate("leaks", [False, False], goal=0.0, better="low"),
        rate("seen", [True]),
    ]
    table = as_markdown(figures)
    assert "| holds | 0.7500 | 0.2165 | 4 | >= 0.7 | yes |" in table
    assert "| leaks | 0.0000 | 0.0000 | 2 | <= 0 | yes |" in table
    assert "| seen | 1.0000 | 0.0000 | 1 |  |  |" in table
    write_json(figures, tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text())[0]["count"] == 4
