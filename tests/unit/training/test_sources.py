"""Where training edits come from: the train split, lazily, and never what is held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from editing_core.evaluation.datasets.records import DatasetError
from editing_core.training.sources import DatasetEdits, DrawnEdits, dataset_edits
from tests.support.datasets import record, write_dataset


def drawn(source: DatasetEdits | DrawnEdits, number: int = 0, locality: str = "both") -> list[str]:
    rng = np.random.default_rng(0)
    edit = source.draw(number, rng, locality=locality)  # type: ignore[arg-type]
    return [probe.role for probe in edit.probes]


def test_a_record_asks_what_the_benchmark_asks(records: Path) -> None:
    source, _ = dataset_edits("vlkeb", records, hold_out=0)
    edit = source.draw(0, np.random.default_rng(0), locality="both")

    assert edit.target == "Newtown 1"
    asked = {probe.role: (probe.prompt, probe.answer) for probe in edit.probes}
    assert asked == {
        "edit": ("Which town is number 1?", None),
        "rephrase": ("Name town 1.", None),
        "view": ("Which town is number 1?", None),
        "image_locality": ("Which river is this?", "the Elbe"),
        "text_locality": ("who wrote book 1", "Author 1"),
    }
    shown = {probe.role: probe.image for probe in edit.probes}
    assert shown["text_locality"] is None
    assert shown["edit"] is shown["rephrase"]
    assert not np.array_equal(shown["edit"], shown["view"])  # type: ignore[arg-type]
    assert drawn(source, locality="picture") == ["edit", "rephrase", "view", "image_locality"]
    assert drawn(source, locality="none") == ["edit", "rephrase", "view"]


def test_answers_that_the_file_does_not_give_are_empty(tmp_path: Path) -> None:
    write_dataset(tmp_path, [record(1, loc_ans=None, m_loc_a=["the Elbe"])], file="vqa_train.json")
    source, _ = dataset_edits("evqa", tmp_path, hold_out=0)
    edit = source.draw(0, np.random.default_rng(0), locality="both")

    assert [probe.answer for probe in edit.probes[3:]] == ["", ""]


def test_pictures_are_read_when_they_are_drawn(tmp_path: Path) -> None:
    rows = [record(number) for number in (1, 2)]
    write_dataset(tmp_path, rows, file="train.json")
    source, _ = dataset_edits("vlkeb", tmp_path, hold_out=0)
    (tmp_path / rows[1]["image_rephrase"]).write_bytes(b"no picture")

    assert drawn(source, 0)
    with pytest.raises(DatasetError, match="record 1: field image_rephrase"):
        drawn(source, 1)


def test_what_is_held_out_shares_nothing_with_what_is_trained_on(tmp_path: Path) -> None:
    rows = [record(n) for n in range(1, 31)]
    for n in range(10):  # two records on one entity, and a view that two entities share
        rows[n]["image"] = f"m.0{n + 11}/bing_9.jpg"
    rows[29]["image_rephrase"] = rows[28]["image_rephrase"]
    write_dataset(tmp_path, rows, file="train.json")

    source, held = dataset_edits("vlkeb", tmp_path, hold_out=5)

    assert held is not None
    assert len(held) == 5
    ours, theirs = source._dataset.records, held._dataset.records
    for key in ("image", "image_rephrase", "entity"):
        assert not {getattr(r, key) for r in ours} & {getattr(r, key) for r in theirs}
    again, _ = dataset_edits("vlkeb", tmp_path, hold_out=5)
    assert again._dataset.records == ours


def test_a_small_dataset_holds_nothing_out(records: Path) -> None:
    assert dataset_edits("vlkeb", records, hold_out=64)[1] is not None  # one in five
    source, held = dataset_edits("vlkeb", records, hold_out=64, limit=4)
    assert held is None
    assert len(source) == 4


def test_what_does_not_fit_a_model_is_left_out(
    records: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, _ = dataset_edits("vlkeb", records, hold_out=0)

    fewer = source.fitting(lambda prompt, target: not target.endswith("2"))

    assert (len(source), len(fewer)) == (6, 5)
    assert "1 of 6 records are left out" in caplog.text
    with pytest.raises(DatasetError, match="no record that this model can be taught"):
        source.fitting(lambda prompt, target: False)


def test_identity_is_that_of_the_file(tmp_path: Path, records: Path) -> None:
    source, _ = dataset_edits("vlkeb", records, hold_out=0)
    write_dataset(tmp_path, [record(n) for n in range(1, 7)], file="train.json")
    assert dataset_edits("vlkeb", tmp_path, hold_out=0)[0].identity == source.identity
    changed = [record(n, alt="Oldtown") for n in range(1, 7)]
    write_dataset(tmp_path, changed, file="train.json")
    assert dataset_edits("vlkeb", tmp_path, hold_out=0)[0].identity != source.identity


def test_the_drawn_world_serves_any_backbone() -> None:
    source = DrawnEdits("train", 3)
    roles = ["edit", "rephrase", "view", "other_question", "look_alike"]
    assert drawn(source, 2) == roles
    assert drawn(source, 2, locality="none") == roles[:3]
    edit = source.draw(2, np.random.default_rng(0), locality="both")
    own, rephrase, view = edit.probes[:3]
    assert own.prompt != rephrase.prompt
    assert not np.array_equal(own.image, view.image)  # type: ignore[arg-type]
