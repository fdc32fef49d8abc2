"""Lines survive a kill; damage and mismatches are told, never passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from editing_core.evaluation.run_log import (
    RunLog,
    RunRefused,
    open_run,
    read_records,
    read_settings,
)


def test_lines_are_there_before_the_log_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    log = RunLog(path)
    log.append([{"case": 1, "answer": "звезда"}])

    assert read_records(path) == [{"case": 1, "answer": "звезда"}]
    with log:
        assert log.records == read_records(path)


def test_a_line_cut_short_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"case": 1}\n{"case": 2, "answer": "зв'.encode()[:-1])
    with RunLog(path) as log:
        assert log.records == [{"case": 1}]
        log.append([{"case": 2}])

    assert read_records(path) == [{"case": 1}, {"case": 2}]


def test_any_other_damage_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"case": 1}\n{"case": \n{"case": 3}\n')

    with pytest.raises(RunRefused, match=r"a\.jsonl, line 2"):
        RunLog(path)


def test_a_run_is_not_overwritten_and_not_mixed_with_another(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    open_run(folder, {"seeds": 3, "counts": (1, 10)}, resume=False)
    open_run(folder, {"seeds": 3, "counts": (1, 10)}, resume=True)

    with pytest.raises(RunRefused, match="already holds a run"):
        open_run(folder, {"seeds": 3, "counts": (1, 10)}, resume=False)
    with pytest.raises(RunRefused, match="seeds: 3 there, 2 now"):
        open_run(folder, {"seeds": 2, "counts": (1, 10)}, resume=True)
    assert read_settings(folder) == {"seeds": 3, "counts": [1, 10]}


def test_trained_editors_may_join_a_run_but_not_change_in_it(tmp_path: Path) -> None:
    folder, one, two = tmp_path / "run", {"fingerprint": "1"}, {"fingerprint": "2"}
    open_run(folder, {"seeds": 1}, resume=False)  # as runs were written that knew of none
    open_run(folder, {"seeds": 1, "also": {}}, resume=True)
    open_run(folder, {"seeds": 1, "also": {"mine": one}}, resume=True)
    open_run(folder, {"seeds": 2, "also": {"yours": two}}, resume=True)
    open_run(folder, {"seeds": 2, "also": {}}, resume=True)

    assert read_settings(folder) == {"seeds": 2, "also": {"mine": one, "yours": two}}
    with pytest.raises(RunRefused, match="also"):
        open_run(folder, {"seeds": 2, "also": {"mine": two}}, resume=True)
    assert read_settings(folder)["also"]["mine"] == one


def test_resuming_nothing_begins(tmp_path: Path) -> None:
    open_run(tmp_path / "new", {"seeds": 1}, resume=True)

    assert read_settings(tmp_path / "new") == {"seeds": 1}


@pytest.mark.parametrize("content", [None, "no json", "[]"])
def test_a_folder_without_a_run_says_so(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)

    with pytest.raises(RunRefused):
        read_settings(tmp_path)


def test_no_file_is_no_lines(tmp_path: Path) -> None:
    assert read_records(tmp_path / "none.jsonl") == []


def test_a_resumed_run_may_have_more_seeds(tmp_path: Path) -> None:
    open_run(tmp_path, {"seeds": 1, "counts": [1]}, resume=False)

    open_run(tmp_path, {"seeds": 3, "counts": [1]}, resume=True)

    assert read_settings(tmp_path)["seeds"] == 3
    with pytest.raises(RunRefused, match="counts"):
        open_run(tmp_path, {"seeds": 4, "counts": [2]}, resume=True)
    assert read_settings(tmp_path)["seeds"] == 3
