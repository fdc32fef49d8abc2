"""`errata bench` on the model that ships: contenders, ablations, the command and its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.commands.bench import app
from editing_core.checkpoint import EMBEDDED, CheckpointLayout
from editing_core.editable_model import EditableModel
from editing_core.errors import CheckpointMissing
from editing_core.evaluation import lineup
from editing_core.evaluation.bench import Cases, Measurement, Suite
from editing_core.evaluation.contender import Contender, Query
from editing_core.evaluation.contenders import EditsOff, SessionContender
from editing_core.evaluation.edit_cases import HeraldryCases
from editing_core.evaluation.probes import EditCase
from editing_core.evaluation.run_log import RunLog, read_records
from editing_core.types import EditRequest


@pytest.fixture(scope="module")
def cases() -> list[EditCase]:
    drawn = HeraldryCases(6)
    return [drawn[index] for index in range(6)]


def edited(name: str, model: EditableModel, cases: list[EditCase]) -> Contender:
    contender = lineup.contender(name, model)
    for case in cases:
        contender.edit(case.request)
    return contender


def own(case: EditCase) -> Query:
    return Query(case.image, case.prompt)


def test_edits_act_together_and_are_gone_after_a_reset(
    embedded_model: EditableModel, cases: list[EditCase]
) -> None:
    unedited = lineup.contender("unedited", embedded_model)
    before = [reply.text for reply in unedited.answer([own(case) for case in cases])]
    contender = edited("liveedit", embedded_model, cases)
    replies = contender.answer([own(case) for case in cases])

    assert [reply.text for reply in replies] == [case.target for case in cases]
    assert all(reply.stopped and reply.fired and reply.survivors for reply in replies)
    assert contender.token_accuracy([own(cases[0])], [cases[0].target]) == [1.0]
    contender.reset()
    assert [r.text for r in contender.answer([own(case) for case in cases])] == before


def test_token_accuracy_is_a_share_of_tokens(
    embedded_model: EditableModel, cases: list[EditCase]
) -> None:
    unedited = lineup.contender("unedited", embedded_model)
    (answer,) = unedited.answer([own(cases[0])])
    shares = unedited.token_accuracy([own(cases[0])] * 2, [answer.text, cases[0].target])

    assert shares[0] == 1.0
    assert 0.0 <= shares[1] < 1.0


def test_ablations_drop_what_they_say(embedded_model: EditableModel, cases: list[EditCase]) -> None:
    other = Query(cases[0].image, "Tell me the outline of this emblem.")
    found = {
        name: edited(name, embedded_model, cases).answer([own(cases[0]), other])
        for name in ("liveedit-unverified", *lineup.ABLATIONS)
    }

    whole = found["liveedit-unverified"]
    assert whole[0].text == cases[0].target
    assert whole[1].fired == 0
    # Without the image filter every edit is a survivor; without text any question fires.
    assert found["no_image_filter"][0].survivors == len(cases)
    assert found["no_soft_routing"][1].fired == found["no_soft_routing"][1].survivors == 1
    assert found["text_only_weights"][1].fired == 1
    assert found["no_sentinel"][0].text == cases[0].target


def test_verification_can_be_by_sample(
    embedded_model: EditableModel, cases: list[EditCase]
) -> None:
    contender = SessionContender("liveedit", embedded_model, verify="strict", verify_every=3)
    for case in cases:
        assert contender.edit(case.request)

    assert contender.diagnostics()["verified"] == pytest.approx(2 / 6)


class Swapped:
    """The first cases; edits `0` and `2` are made with each other's target."""

    def __init__(self, *, swap: bool) -> None:
        self._cases = HeraldryCases(6)
        self._order = {0: 2, 2: 0} if swap else {}

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> EditCase:
        return self._cases[index]

    def request(self, index: int) -> EditRequest:
        own, other = self._cases[index], self._cases[self._order.get(index, index)]
        return EditRequest(own.image, own.prompt, other.target)


def reliability(
    model: EditableModel, cases: Cases, folder: Path, *, off: bool = False
) -> list[bool]:
    suite = Suite("edits", lambda seed: cases, (6,), 6)
    made = lineup.contender("liveedit-unverified", model)
    contender = EditsOff(made) if off else made
    with RunLog(folder / "unedited.jsonl") as log:
        base = Measurement(suite, 0, log.records)
        base.ask_unedited(lineup.contender("unedited", model), log, lambda *told: None)
        unedited = log.records
    with RunLog(folder / "contender.jsonl") as log:
        Measurement(suite, 0, unedited).measure(contender, log, lambda *told: None)
        probes = [p for r in log.records if r["record"] == "case" for p in r["probes"]]
    if off:
        assert all(p["right"] for p in probes if p["locality"])
        before = {(r["case"], p["kind"]): p["answer"] for r in unedited for p in r["probes"]}
        lines = [(r["case"], p) for r in log.records if "probes" in r for p in r["probes"]]
        assert all(p["answer"] == before[case, p["kind"]] for case, p in lines)
    return [p["right"] for p in probes if p["kind"] == "reliability"]


def test_swapping_two_targets_costs_exactly_those_two(
    embedded_model: EditableModel, tmp_path: Path
) -> None:
    assert reliability(embedded_model, Swapped(swap=False), tmp_path / "a") == [True] * 6
    swapped = reliability(embedded_model, Swapped(swap=True), tmp_path / "b")
    assert swapped == [False, True, False, True, True, True]


def test_with_editing_off_it_is_the_unedited_model_and_local(
    embedded_model: EditableModel, tmp_path: Path
) -> None:
    assert reliability(embedded_model, Swapped(swap=False), tmp_path, off=True) == [False] * 6


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_the_command_measures_resumes_and_writes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    asked = ["--edits", "1,2", "--probes", "4", "--seeds", "1", "--out", str(out)]
    asked += ["--processes", "1"]
    done = bench("--editors", "liveedit", *asked)
    assert done.exit_code == 0, done.output
    assert [p.name for p in sorted((out / "plots").iterdir())] == [
        "cost.png",
        "exact-match.png",
        "token-accuracy.png",
    ]
    assert "| unedited |" in (out / "report.md").read_text()
    figures = json.loads((out / "figures.json").read_text())["figures"]
    own = [f for f in figures if (f["editor"], f["kind"]) == ("liveedit", "reliability")]
    assert {f["edits"]: f["count"] for f in own} == {1: 1, 2: 2}

    path = out / "records" / "liveedit.0.jsonl"
    lines = read_records(path)
    path.write_bytes(path.read_bytes()[:-400])
    assert bench("--editors", "liveedit", *asked).exit_code == 1
    # Another contender joins the same run.
    again = bench("--editors", "liveedit,in_context", *asked, "--resume")
    assert again.exit_code == 0, again.output
    assert [line["record"] for line in read_records(path)] == [line["record"] for line in lines]
    assert "in_context" in (out / "report.md").read_text()


@pytest.fixture(scope="module")
def folder_of_an_editor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `errata train --out` leaves it, with the weights that ship."""
    folder = tmp_path_factory.mktemp("trained")
    for path in CheckpointLayout(EMBEDDED).part("liveedit"):
        shutil.copy(path, folder)
    return folder


def test_a_trained_editor_stands_beside_the_others(
    tmp_path: Path, folder_of_an_editor: Path
) -> None:
    out = tmp_path / "run"
    asked = ["--edits", "2", "--probes", "2", "--seeds", "1", "--out", str(out)]
    also = ["--also", f"mine={folder_of_an_editor}"]
    done = bench("--editors", "liveedit-unverified", *also, *asked, "--processes", "2")
    assert done.exit_code == 0, done.output

    def answers(name: str) -> list[str]:
        lines = read_records(out / "records" / f"{name}.0.jsonl")
        return [p["answer"] for line in lines for p in line.get("probes", ())]

    assert answers("mine") == answers("liveedit-unverified") != []
    settings = json.loads((out / "run.json").read_text())
    assert settings["also"]["mine"]["editor"] == "liveedit"
    assert settings["also"]["mine"]["fingerprint"].startswith("sha256:")
    assert (
        f"- `mine`: `liveedit` as trained into `{folder_of_an_editor}`"
        in (out / "report.md").read_text()
    )


def test_a_folder_must_hold_one_editor(embedded_model: EditableModel, tmp_path: Path) -> None:
    with pytest.raises(CheckpointMissing, match="no editor"):
        lineup.contender("mine", embedded_model, also={"mine": str(tmp_path)})


def test_groups_are_a_run_of_their_own(tmp_path: Path) -> None:
    asked = ["--groups", "1", "--seeds", "1", "--out", str(tmp_path / "g"), "--processes", "1"]
    done = bench("--editors", "liveedit-unverified", *asked)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "g" / "report.md").read_text()

    assert "4 edits: 4 look-alikes, one question" in page
    assert "whole groups" in page
    assert "portability" in page


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--editors", "nobody"], "liveedit-paper"),
        (["--edits", "ten"], "not numbers"),
        (["--also", "mine"], "NAME=FOLDER"),
        (["--also", "../mine=x"], "NAME=FOLDER"),
        (["--also", "liveedit=x"], "taken"),
        (["--also", "mine=/nowhere"], "no editor"),
        (["--edits", "0"], "at least 1"),
        (["--edits", "20000"], "10,000"),
        (["--dataset", "imagenet"], "vlkeb"),
        (["--dataset", "vlkeb"], "--path"),
        (["--dataset", "vlkeb", "--path", "/nowhere"], "nowhere"),
    ],
)
def test_wrong_arguments_are_explained(tmp_path: Path, arguments: list[str], told: str) -> None:
    done = bench(*arguments, "--out", str(tmp_path / "run"))

    assert done.exit_code != 0
    assert told in done.output


def test_the_contenders_are_listed() -> None:
    done = bench("--list")

    assert done.exit_code == 0
    for name in (*lineup.MEANINGS, "ft_l", "in_context"):
        assert name in done.output
