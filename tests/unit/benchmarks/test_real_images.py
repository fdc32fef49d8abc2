"""What the flag runs count, shown on answerers whose every answer is known."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.answering import Advance, Answer, Considered, Made
from benchmarks.flag_protocol import REDRAWN, Run, run_half_split, run_together
from benchmarks.flag_tables import (
    BOTH_OF_A_PAIR,
    LOOK_ALIKES,
    Row,
    causes,
    causes_as_markdown,
    made_as_markdown,
    misses,
    refinement,
    refusals,
    refused,
    rows_as_markdown,
    rows_of,
)
from benchmarks.flags import (
    NEAR_IDENTICAL,
    FlagData,
    FlagEdit,
    Question,
    look_alike_pairs,
    read_flags,
)
from benchmarks.real_images import main
from editing_core.evaluation.datasets.records import DatasetError
from tests.support.flags import flag_records, write_flags


@contextlib.contextmanager
def unwatched(_stage: str, _total: int) -> Iterator[Advance]:
    yield lambda _steps: None


class Notebook:
    """Answers an edited flag, in either drawing and wording, with its target; all else as before.

    `forgets` and `refuses` name targets; `leaks` answers everything with the first edit's target.
    """

    def __init__(
        self,
        *,
        refuses: frozenset[str] = frozenset(),
        forgets: frozenset[str] = frozenset(),
        leaks: bool = False,
        weighs: str = "own",
        after: str | None = "unknown",
    ) -> None:
        self._after = after
        self._refuses, self._forgets, self._leaks = refuses, forgets, leaks
        self._weighs = weighs
        self.resets = 0
        self.edits: dict[str, FlagEdit] = {}

    def reset(self) -> None:
        self.resets += 1
        self.edits = {}

    def edit(self, edits: Sequence[FlagEdit], advance: Advance) -> list[Made]:
        made = []
        for edit in edits:
            advance(1)
            if edit.target in self._refuses:
                made.append(Made(None, refusal="edit_not_effective", after=self._after))
                continue
            self.edits[f"e{len(made)}"] = edit
            made.append(Made(f"e{len(made)}", refinement_steps=len(made) % 2 * 4))
        return made

    def ask(
        self, questions: Sequence[Question], *, with_edits: bool, advance: Advance
    ) -> list[Answer]:
        advance(len(questions))
        return [self._answer(q) if with_edits else Answer("as before", True) for q in questions]

    def _answer(self, question: Question) -> Answer:
        for edit_id, edit in self.edits.items():
            mine = self._leaks or (
                question.picture in (edit.record.image, edit.record.image_rephrase)
                and question.prompt in (edit.record.prompt, edit.record.rephrase)
            )
            if mine:
                text = "wrong" if edit.target in self._forgets else edit.target
                return Answer(text, True, self._considered(edit_id))
        return Answer("as before", True)

    def _considered(self, edit_id: str) -> tuple[Considered, ...]:
        ways = {
            "own": (Considered(edit_id, 1.0, "applied"),),
            "shared": (Considered(edit_id, 0.6, "applied"), Considered("e9", 0.4, "applied")),
            "dropped": (Considered(edit_id, 0.0, "below_text_gate"),),
            "unseen": (),
            "other": (Considered("e1", 0.7, "applied"), Considered(edit_id, 0.3, "applied")),
        }
        return ways[self._weighs]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FlagData:
    return read_flags(write_flags(tmp_path_factory.mktemp("flags")))


def together(data: FlagData, notebook: Notebook) -> tuple[Run, dict[str, Row]]:
    run = run_together(data, notebook, unwatched)
    return run, {row.figure.name: row for row in rows_of(run)}


def test_a_perfect_notebook_scores_one_everywhere(data: FlagData) -> None:
    notebook = Notebook()
    run, rows = together(data, notebook)
    assert {name: row.figure.value for name, row in rows.items()} == dict.fromkeys(rows, 1.0)
    assert rows["reliability"].off == rows["text generality"].off == 0.0
    assert rows["image locality"].off == rows["text locality"].off == 1.0
    assert rows["reliability"].figure.count == 8
    assert rows["image generality"].figure.count == 6
    assert rows[REDRAWN].figure.count == 2
    assert rows[REDRAWN].figure.goal is None
    assert rows["reliability"].by_fact == {"capital": 1.0, "currency": 1.0}
    assert notebook.resets == 1
    assert causes(run) == {}
    assert causes_as_markdown(run) == "No misses."


def test_two_swapped_targets_miss_by_exactly_those_two(data: FlagData) -> None:
    swapped = list(data.edits)
    for mine, other in ((0, 2), (2, 0)):
        record = dataclasses.replace(swapped[mine].record, target=data.edits[other].target)
        swapped[mine] = dataclasses.replace(swapped[mine], record=record)

    class Swapped(Notebook):
        def edit(self, edits: Sequence[FlagEdit], advance: Advance) -> list[Made]:
            return super().edit(swapped, advance)

    run, rows = together(data, Swapped())
    assert rows["reliability"].figure.value == pytest.approx(6 / 8)
    assert rows["image locality"].figure.value == 1.0
    wrong = [miss["record"] for miss in misses(run) if miss["kind"] == "reliability"]
    assert wrong == [0, 2]


def test_a_refused_edit_is_a_miss_with_its_code(data: FlagData) -> None:
    run, rows = together(data, Notebook(refuses=frozenset({"Cor"})))
    assert rows["reliability"].figure.value == pytest.approx(7 / 8)
    assert rows["reliability"].by_fact["capital"] == 0.75
    assert rows["image locality"].figure.value == 1.0
    assert refusals(run) == {"edit_not_effective": 1}
    assert causes(run)["reliability"] == {"refused: edit_not_effective, own answer wrong": 1}
    assert refinement(run)["accepted"] == 7
    assert refinement(run)["mean steps of the refined"] == 4
    assert "`edit_not_effective`: 1" in made_as_markdown(run)


@pytest.mark.parametrize(
    ("made", "obstacle"),
    [
        (Made(None, "target_too_long"), "target_too_long, not tried"),
        (Made(None, "edit_not_effective", after="no"), "edit_not_effective, own answer wrong"),
        (Made(None, "edit_conflicts", after="Aby", damaged=("e1",)), "other answers change"),
        (Made(None, "edit_not_effective", after="Aby"), "own answer does not end"),
    ],
)
def test_a_refusal_says_what_stood_in_the_way(made: Made, obstacle: str, data: FlagData) -> None:
    class Refusing(Notebook):
        def edit(self, edits: Sequence[FlagEdit], advance: Advance) -> list[Made]:
            return [made, *super().edit(edits, advance)[1:]]

    run, _ = together(data, Refusing())
    (cause,) = causes(run)["reliability"]
    assert cause.endswith(obstacle)
    assert [(row["target"], row["after"]) for row in refused(run)] == [("Aby", made.after)]


def test_an_edit_that_leaks_fails_locality(data: FlagData) -> None:
    run, rows = together(data, Notebook(leaks=True))
    assert rows["image locality"].figure.value == rows["text locality"].figure.value == 0.0
    assert rows["image locality"].figure.is_reached is False
    assert "an edit acted: other flag, same question" in causes(run)["image locality"]


@pytest.mark.parametrize(
    ("weighs", "cause"),
    [
        ("own", "own edit on top (alone), wrong answer"),
        ("shared", "own edit on top (others with it), wrong answer"),
        ("dropped", "own edit dropped: below_text_gate"),
        ("unseen", "own edit not found by the picture"),
        ("other", "another edit weighed more: same flag, other question"),
    ],
)
def test_a_miss_says_what_routing_did(weighs: str, cause: str, data: FlagData) -> None:
    run, _ = together(data, Notebook(forgets=frozenset({"Aby"}), weighs=weighs))
    assert causes(run)["reliability"] == {cause: 1}
    assert f"| reliability | {cause} | 1 |" in causes_as_markdown(run)


def test_an_answer_that_does_not_stop_is_no_hit(data: FlagData) -> None:
    class Endless(Notebook):
        def ask(
            self, questions: Sequence[Question], *, with_edits: bool, advance: Advance
        ) -> list[Answer]:
            answers = super().ask(questions, with_edits=with_edits, advance=advance)
            return [dataclasses.replace(a, stopped=not with_edits) for a in answers]

    _, rows = together(data, Endless())
    assert rows["reliability"].figure.value == 0.0
    assert rows["image locality"].figure.value == 0.0


def test_look_alike_pairs_are_counted_once_and_apart(data: FlagData) -> None:
    pairs = look_alike_pairs(data.edits)
    assert {(a.country, b.country) for a, b in pairs} == {("AA", "BB")}
    assert len(pairs) == 2
    _, rows = together(data, Notebook(forgets=frozenset({"Bel"})))
    assert rows[LOOK_ALIKES].figure.count == 4
    assert rows[LOOK_ALIKES].figure.value == 0.75
    assert rows[BOTH_OF_A_PAIR].figure.value == 0.5


def test_half_the_countries_are_edited_and_the_others_asked(data: FlagData) -> None:
    edited, others = data.halves(0)
    assert {edit.country for edit in edited}.isdisjoint(edit.country for edit in others)
    assert len(edited) == len(others) == 4
    assert data.halves(0) == data.halves(0)
    seeds = (s for s in range(50) if {e.country for e in data.halves(s)[0]} == {"AA", "CC"})
    run = run_half_split(data, Notebook(), unwatched, seed=next(seeds))
    counts = {row.figure.name: (row.figure.count, row.figure.value) for row in rows_of(run)}
    assert counts["other flags unchanged"] == (2, 1.0)
    assert counts["near-identical flags unchanged"] == (2, 1.0)
    assert {p.note.split(" from ")[1] for p in run.probed if p.edit.country == "BB"} == {
        "flags/one/aa.png"
    }
    leaking = run_half_split(data, Notebook(leaks=True), unwatched)
    assert {row.figure.value for row in rows_of(leaking) if "unchanged" in row.figure.name} == {0.0}


def test_the_distance_of_two_flags(data: FlagData) -> None:
    aa, bb, cc = (f"flags/one/{name}.png" for name in ("aa", "bb", "cc"))
    assert data.distance(aa, aa) == 0.0
    assert 0 < data.distance(aa, bb) == data.distance(bb, aa) < NEAR_IDENTICAL
    assert data.distance(aa, cc) > NEAR_IDENTICAL
    assert data.nearest(aa, [cc, bb])[1] == bb


def test_a_limit_keeps_whole_countries(data: FlagData) -> None:
    assert [e.country for e in data.limited(3).edits] == ["AA", "AA", "BB", "BB"]
    assert data.limited(None) is data
    assert data.limited(99) is data


def test_the_table_shows_goals_and_facts(data: FlagData) -> None:
    run, _ = together(data, Notebook(forgets=frozenset({"Aby"})))
    text = rows_as_markdown(rows_of(run))
    line = "| reliability | 0.8750 | 0.1169 | 0.0000 | 8 | >= 0.98 | no | 0.750 | 1.000 |"
    assert line in text
    assert all(row.as_json()["by_fact"] for row in rows_of(run))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fact": None}, "record 1: field fact is null"),
        ({"m_loc_is_lookalike": 1}, "record 1: field m_loc_is_lookalike is a number"),
        ({"image": "flags/one/zz.png"}, "record 1: field image: there is no file"),
        (flag_records()[0], "edits a picture and prompt twice"),
    ],
)
def test_faulty_data_is_refused_by_name(
    changes: dict[str, object],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    records = flag_records()
    records[1] |= changes
    folder = write_flags(tmp_path, records)
    with pytest.raises(DatasetError) as caught:
        read_flags(folder)
    assert told in caught.value.message
    assert main(["--data", str(folder)]) == 2
    assert told in capsys.readouterr().err


def test_the_json_file_itself_may_be_named(tmp_path: Path) -> None:
    folder = write_flags(tmp_path)
    assert read_flags(folder / "flags/edits-dev.json").root == folder
