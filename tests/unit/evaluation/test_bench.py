"""The benchmark counts what it says it counts, and a killed run goes on as if it never was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from editing_core.evaluation.bench import Cases, Measurement, Suite
from editing_core.evaluation.bench_run import BenchPlan
from editing_core.evaluation.contender import Contender, Query, Reply
from editing_core.evaluation.contenders import EditsOff
from editing_core.evaluation.run_log import RunLog, read_records
from editing_core.evaluation.summary import EXACT, FORCED, Summary, summarise
from editing_core.types import EditRequest
from tests.support.contenders import Notebook, PlainCases


def suite_of(cases: Cases, *counts: int, probed: int = 8) -> Suite:
    return Suite("edits", lambda seed: cases, counts, probed)


def quiet(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total, what


def measure(folder: Path, suite: Suite, *contenders: Contender, seeds: int = 1) -> Summary:
    """Run all contenders as `bench_run` does, in this process."""
    with RunLog(folder / "unedited.jsonl") as log:
        for seed in range(seeds):
            Measurement(suite, seed, log.records).ask_unedited(Notebook("unedited"), log, quiet)
        unedited = log.records
    for contender in contenders:
        with RunLog(folder / f"{contender.name}.jsonl") as log:
            for seed in range(seeds):
                Measurement(suite, seed, unedited).measure(contender, log, quiet)
    return summarise([r for path in sorted(folder.glob("*.jsonl")) for r in read_records(path)])


def value(summary: Summary, editor: str, kind: str, edits: int, protocol: str = EXACT) -> float:
    (found,) = [
        f
        for f in summary.figures
        if (f.editor, f.kind, f.edits, f.protocol) == (editor, kind, edits, protocol)
    ]
    return found.value


def test_a_notebook_is_reliable_and_local_but_does_not_generalise(tmp_path: Path) -> None:
    found = measure(tmp_path, suite_of(PlainCases(10), 10), Notebook())

    assert value(found, "notebook", "reliability", 10) == 1.0
    assert value(found, "notebook", "text generality", 10) == 0.0
    assert value(found, "notebook", "text locality", 10) == 1.0
    assert value(found, "notebook", "reliability", 10, FORCED) == 1.0


def test_the_unedited_model_is_a_row_over_the_same_cases(tmp_path: Path) -> None:
    found = measure(tmp_path, suite_of(PlainCases(10), 1, 10, probed=4), Notebook())
    rows = [f for f in found.figures if f.editor == "unedited" and f.protocol == EXACT]

    assert {f.edits for f in rows} == {1, 10}
    assert {f.edits: f.count for f in rows} == {1: 1, 10: 4}
    assert value(found, "unedited", "reliability", 10) == 0.0
    assert value(found, "unedited", "text locality", 10) == 1.0


def test_an_edit_that_leaks_everywhere_fails_locality_and_is_a_false_fire(tmp_path: Path) -> None:
    found = measure(tmp_path, suite_of(PlainCases(10), 10), Notebook(leaks=True))
    (cost,) = [c for c in found.costs if c.editor == "notebook"]

    assert value(found, "notebook", "text locality", 10) == 0.0
    assert (cost.false_fires, cost.survivors) == (1.0, 3.0)


def test_a_refused_edit_misses_what_it_should_have_changed_and_nothing_else(tmp_path: Path) -> None:
    notebook = Notebook(refuses=["target 0", "target 5"])
    found = measure(tmp_path, suite_of(PlainCases(8), 8), notebook)
    (cost,) = [c for c in found.costs if c.editor == "notebook"]

    assert value(found, "notebook", "reliability", 8) == 0.75
    assert value(found, "notebook", "text locality", 8) == 1.0
    assert cost.refused == 0.25
    assert cost.diagnostics == {"pages": 6.0}


def test_few_edits_are_measured_in_many_pools_and_many_by_a_sample() -> None:
    suite = suite_of(PlainCases(1000), 1, 4, 100, 500, probed=200)

    ones = suite.pools(1, 0, 1000)
    assert [pool.probed for pool in ones] == [(i,) for i in range(50)]
    assert [p.first for p in suite.pools(4, 0, 1000)] == [4 * i for i in range(12)]
    assert [len(p.probed) for p in suite.pools(100, 0, 1000)] == [100, 100]
    assert len(suite.pools(100, 0, 150)) == 1
    (many,) = suite.pools(500, 0, 1000)
    assert len(set(many.probed)) == 200
    assert max(many.probed) < 500
    assert suite.pools(500, 1, 1000)[0].probed != many.probed
    assert suite.pools(2000, 0, 1000) == []


def test_pools_start_from_the_unedited_model(tmp_path: Path) -> None:
    found = measure(tmp_path, suite_of(PlainCases(8), 1, probed=8), Notebook())
    (cost,) = [c for c in found.costs if c.editor == "notebook"]

    assert cost.diagnostics == {"pages": 1.0}


def test_a_larger_pool_goes_on_from_the_one_it_begins_with(tmp_path: Path) -> None:
    class Counts(Notebook):
        made = 0

        def edit(self, request: EditRequest) -> bool:
            self.made += 1
            return super().edit(request)

    counting = Counts()
    found = measure(tmp_path, suite_of(PlainCases(20), 8, 20, probed=8), counting)

    assert counting.made == 20
    assert value(found, "notebook", "reliability", 20) == 1.0
    (cost,) = [c for c in found.costs if c.editor == "notebook" and c.edits == 20]
    assert cost.diagnostics == {"pages": 20.0}


@pytest.mark.parametrize("batches", [0, 1, 3, 6])
def test_a_killed_run_goes_on_with_the_lines_of_one_never_killed(
    tmp_path: Path, batches: int
) -> None:
    suite = suite_of(PlainCases(20), 4, 20, probed=40)
    measure(tmp_path / "whole", suite, Notebook())

    killed = tmp_path / "killed"
    with pytest.raises(InterruptedError):
        measure(killed, suite, Notebook(fails_after=batches))
    path = killed / "notebook.jsonl"
    path.write_bytes(path.read_bytes() + b'{"record": "case", "edi')
    again = Notebook()
    measure(killed, suite, again)

    assert without_times(path) == without_times(tmp_path / "whole" / "notebook.jsonl")
    # Nothing that was measured is measured again.
    assert again.batches == 7 - batches


def test_a_finished_run_asks_nothing_again(tmp_path: Path) -> None:
    suite = suite_of(PlainCases(8), 8)
    measure(tmp_path, suite, Notebook())
    again = Notebook()
    measure(tmp_path, suite, again)

    assert again.batches == 0


def test_with_edits_taken_back_it_is_the_unedited_model(tmp_path: Path) -> None:
    found = measure(tmp_path, suite_of(PlainCases(8), 8), EditsOff(Notebook(leaks=True)))

    for kind, wanted in (("reliability", 0.0), ("text locality", 1.0)):
        assert value(found, "notebook", kind, 8) == wanted


class Swapped(PlainCases):
    """Cases whose first two edits are made with each other's target."""

    def request(self, index: int) -> EditRequest:
        return EditRequest(
            self[index].image, self[index].prompt, self[{0: 1, 1: 0}.get(index, index)].target
        )


def test_swapping_two_targets_costs_exactly_those_two(tmp_path: Path) -> None:
    found = measure(tmp_path, suite_of(Swapped(8), 8), Notebook())

    assert value(found, "notebook", "reliability", 8) == 6 / 8


def test_an_answer_that_never_ends_matches_only_one_that_did_not_end_before(
    tmp_path: Path,
) -> None:
    class Endless(Notebook):
        def answer(self, queries: Sequence[Query]) -> list[Reply]:
            return [Reply(reply.text, stopped=False) for reply in super().answer(queries)]

    suite = suite_of(PlainCases(4), 4)
    found = measure(tmp_path / "a", suite, Endless())
    assert value(found, "notebook", "reliability", 4) == 0.0
    assert value(found, "notebook", "text locality", 4) == 0.0

    endless = tmp_path / "b"
    with RunLog(endless / "unedited.jsonl") as log:
        Measurement(suite, 0, log.records).ask_unedited(Endless("unedited"), log, quiet)
        unedited = log.records
    with RunLog(endless / "notebook.jsonl") as log:
        Measurement(suite, 0, unedited).measure(Endless(), log, quiet)
        records = log.records
    localities = [p for r in records if r["record"] == "case" for p in r["probes"] if p["locality"]]
    assert all(p["right"] for p in localities)
    assert all(p["token_accuracy"] is None for p in localities)


def without_times(path: Path) -> list[dict[str, Any]]:
    records = read_records(path)
    for record in records:
        record.pop("edit_ms", None)
        for probe in record.get("probes", ()):
            probe.pop("ms")
    return records


def test_baselines_may_be_measured_under_fewer_seeds() -> None:
    plan = BenchPlan(("liveedit", "ft_l"), seeds=3)

    assert [plan.seeds_of(name) for name in plan.editors] == [3, 1]
    assert replace(plan, baseline_seeds=2).seeds_of("ft_l") == 2
    assert replace(plan, seeds=1, baseline_seeds=2).seeds_of("ft_l") == 1
