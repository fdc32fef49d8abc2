"""Figures, tables and plots from lines whose figures can be told by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editing_core.evaluation.plots import draw_plots
from editing_core.evaluation.run_log import RunLog, records_of
from editing_core.evaluation.summary import (
    EXACT,
    FORCED,
    GROUPS,
    Measured,
    Summary,
    read_run,
    summarise,
)
from editing_core.evaluation.tables import report

SETTINGS = {"dataset": "heraldry", "seeds": 2, "probed": 4, "verify_every": 1, "edits_off": False}


def line(
    editor: str,
    case: int,
    *rights: bool,
    edits: int = 4,
    seed: int = 0,
    group: int | None = None,
    suite: str = "edits",
    target_group: str = "alternative",
) -> dict[str, Any]:
    kinds = ("reliability", "text locality")
    return {
        "record": "case",
        "editor": editor,
        "suite": suite,
        "seed": seed,
        "edits": edits,
        "pool": 0,
        "case": case,
        "group": group,
        "target_group": target_group,
        "accepted": True,
        "probes": [
            {
                "kind": kind,
                "right": right,
                "locality": kind == "text locality",
                "token_accuracy": 1.0 if right else 0.5,
                "fired": int(right),
                "survivors": 2,
                "ms": 4.0,
            }
            for kind, right in zip(kinds, rights, strict=False)
        ],
    }


def pool(editor: str, *, edits: int = 4, refused: float = 0.0, **own: float) -> dict[str, Any]:
    return {
        "record": "pool",
        "editor": editor,
        "suite": "edits",
        "seed": 0,
        "edits": edits,
        "pool": 0,
        "refused": refused,
        "edit_ms": 3.0,
        "diagnostics": own,
    }


def run(*rights: bool, editor: str = "liveedit", edits: int = 4) -> list[dict[str, Any]]:
    """Two seeds of reliability probes, half of `rights` each, with the unedited model's."""
    half = len(rights) // 2
    places = [(seed, case) for seed in range(2) for case in range(half)]
    base = [line("unedited", case, False, True, edits=0, seed=seed) for seed, case in places]
    own = [
        line(editor, case, right, True, edits=edits, seed=seed)
        for (seed, case), right in zip(places, rights, strict=True)
    ]
    return [*base, *own, pool(editor, edits=edits, refused=0.25, refined=0.5)]


def figure(summary: Summary, editor: str, kind: str, protocol: str = EXACT) -> Measured:
    (found,) = [
        f for f in summary.figures if (f.editor, f.kind, f.protocol) == (editor, kind, protocol)
    ]
    return found


def test_a_figure_has_its_count_error_and_interval_over_seeds() -> None:
    found = figure(summarise(run(True, True, True, False)), "liveedit", "reliability")

    assert (found.value, found.count, found.per_seed) == (0.75, 4, (1.0, 0.5))
    assert found.standard_error == pytest.approx(0.25)
    assert found.interval is not None
    low, high = found.interval
    assert (low + high) / 2 == pytest.approx(0.75)
    assert (high - low) / 2 == pytest.approx(12.706 * math.sqrt(0.125) / math.sqrt(2))


def test_one_seed_has_no_interval_and_one_probe_no_error() -> None:
    found = figure(summarise([line("liveedit", 0, True, True)]), "liveedit", "reliability")

    assert found.interval is None
    assert math.isnan(found.standard_error)


def test_token_accuracy_stands_apart_from_exact_match() -> None:
    summary = summarise(run(True, False, True, False))

    assert figure(summary, "liveedit", "reliability", EXACT).value == 0.5
    assert figure(summary, "liveedit", "reliability", FORCED).value == 0.75


def test_a_group_is_right_when_all_of_it_is() -> None:
    rights = [True, True, True, False]
    lines = [line("liveedit", i, right, group=i // 2) for i, right in enumerate(rights)]
    found = figure(summarise(lines), "liveedit", GROUPS)

    assert (found.value, found.count) == (0.5, 2)


def test_costs_are_of_pools_and_of_locality_probes() -> None:
    lines = run(True, True, True, False)
    (cost,) = [c for c in summarise(lines).costs if c.editor == "liveedit"]

    assert (cost.refused, cost.edit_ms, cost.answer_ms, cost.survivors) == (0.25, 3.0, 4.0, 2.0)
    assert cost.false_fires == 1.0
    assert cost.diagnostics == {"refined": 0.5}


def test_without_contenders_the_unedited_model_stands_alone() -> None:
    summary = summarise([line("unedited", 0, False, True, edits=0)])

    assert {f.editor for f in summary.figures} == {"unedited"}


def test_the_report_names_protocols_counts_and_who_is_ahead() -> None:
    rival = [line("ft_l", case, True, False, seed=seed) for seed in range(2) for case in range(2)]
    summary = summarise([*run(True, True, True, False), *rival, pool("ft_l")])
    page = report(summary, SETTINGS, facts={"machine": "a laptop"})

    assert "| machine | a laptop |" in page
    assert "| liveedit | 0.750 ± 0.250 | 1.000 ± 0.000 |" in page
    assert "- 4 edits, reliability: ft_l 1.000; liveedit 0.750" in page
    assert "n = 4." in page
    assert page.index("## Exact match") < page.index("## Token accuracy, teacher-forced")
    assert "| liveedit | 0.250 | 3.0 | 4.0 | 2.00 | 1.0000 | refined 0.5 |" in page
    assert "(0.000 to 1.000)" in page
    assert "nan" not in page


def test_a_report_says_when_edits_were_off_and_liveedit_took_no_part() -> None:
    summary = summarise(run(True, True, editor="grace"))
    page = report(summary, SETTINGS | {"edits_off": True}, facts={})

    assert "every edit was made and taken back" in page
    assert "`liveedit` did not take part." in page


def test_figures_are_json(tmp_path: Path) -> None:
    told = summarise(run(True, True, True, False)).as_json()
    (tmp_path / "f.json").write_text(json.dumps(told))
    first = json.loads((tmp_path / "f.json").read_text())["figures"][0]

    assert {"editor", "edits", "kind", "protocol", "value", "count", "standard_error"} <= set(first)


def test_plots_show_figures_at_several_edit_counts(tmp_path: Path) -> None:
    lines = [*run(True, True, True, False), *run(True, False, edits=40)]
    drawn = draw_plots(summarise(lines), tmp_path / "plots")

    assert [path.name for path in drawn] == ["exact-match.png", "token-accuracy.png", "cost.png"]
    for path in drawn:
        with Image.open(path) as picture:
            assert picture.width > 500


def test_one_edit_count_makes_no_curve(tmp_path: Path) -> None:
    assert draw_plots(summarise(run(True, True)), tmp_path / "plots") == []


def test_a_run_is_read_in_the_order_asked_for_with_the_unedited_model_first(
    tmp_path: Path,
) -> None:
    for name in ("a.0", "b.0", "b.1", "c.0", "unedited"):
        with RunLog(records_of(tmp_path, name)) as log:
            log.append([{"editor": name.partition(".")[0]}])

    read = [record["editor"] for record in read_run(tmp_path, ["c", "gone", "b"])]
    assert read == ["unedited", "c", "b", "b", "a"]


def test_what_holds_is_told_by_target_where_targets_differ() -> None:
    lines = [line("e", 0, True, True), line("e", 1, False, True, target_group="long name")]

    found = {f.kind: f.value for f in summarise(lines).by_target}
    page = report(summarise(lines), SETTINGS, facts={})

    assert found == {"reliability, alternative": 1.0, "reliability, long name": 0.0}
    assert "## Exact match, by what the target is" in page
    assert summarise(lines[:1]).by_target == ()
