"""Three-record fixtures of every published layout: what is asked, and how faults are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editing_core.evaluation.datasets.base import Dataset, load
from editing_core.evaluation.datasets.records import DatasetError
from editing_core.evaluation.probes import KINDS, EditCase
from editing_core.registry import DATASETS
from tests.support.datasets import draw, pictures_of, record, three, write_dataset, write_json

HOP = {
    "port_edit_q": "What country is Newtown in?",
    "port_edit_a": "Atlantis",
    "port_q": "Which country is the place in the picture in?",
    "port_a": "Atlantis ",
}
LAYOUTS = [
    ("evqa", "vqa/vqa_eval.json", "images"),
    ("evqa", "editing-data/vqa/vqa_eval.json", "images"),
    ("eic", "caption/caption_eval_edit.json", "."),
    ("vlkeb", "eval.json", "mmkb_images"),
    ("vlkeb", "eval.json", "VLKEB_images/mmkb_images"),
]


def prompts(case: EditCase) -> dict[str, str]:
    return {probe.kind: probe.prompt for probe in case.probes}


def fails(name: str, path: Path, **options: Any) -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        load(name, path, **options)
    return caught.value


@pytest.mark.parametrize("name", DATASETS)
def test_every_registered_dataset_is_one(name: str) -> None:
    found = DATASETS.resolve(name)
    assert issubclass(found, Dataset)
    assert found.name == name
    assert {"eval", "train"} == set(found.files)


def test_an_unknown_dataset_is_answered_with_the_known(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="known: eic, evqa, vlkeb"):
        load("coco", tmp_path)


@pytest.mark.parametrize(("name", "file", "images"), LAYOUTS)
def test_every_layout_is_read_by_folder_and_by_file(
    name: str, file: str, images: str, tmp_path: Path
) -> None:
    folder = write_dataset(tmp_path, three(), file=file, images=images)
    by_folder, by_file = load(name, folder), load(name, folder / file)
    assert len(by_folder) == len(by_file) == 3
    assert [case.target for case in by_folder] == ["Newtown 1", "Newtown 2", "Newtown 3"]
    assert np.array_equal(by_file[2].image, by_folder[-1].image)


def test_the_kinds_of_probes_ask_what_they_should(tmp_path: Path) -> None:
    case = load("vlkeb", write_dataset(tmp_path, three(port_new=[HOP])))[0]
    assert case.seed == 0
    assert case.question_kind == "entity"
    assert set(prompts(case)) <= set(KINDS)
    assert prompts(case)["reliability"] == prompts(case)["image generality"] == case.prompt
    assert prompts(case)["text generality"] == "Name town 1."
    assert prompts(case)["image locality"] == "Which river is this?"
    assert prompts(case)["same image, other question"] == "who wrote book 1"
    images = {probe.kind: probe.image for probe in case.probes}
    assert images["text locality"] is None
    assert images["reliability"] is case.image
    assert images["both generalities"] is images["image generality"] is not case.image
    assert np.ptp(np.asarray(images["grey image, same question"])) == 0
    by_kind = {probe.kind: probe for probe in case.probes}
    assert case.expected(by_kind["text generality"], "before") == "Newtown 1"
    assert case.expected(by_kind["portability"], "before") == "Atlantis"
    assert case.expected(by_kind["image locality"], "before") == "before"


def test_what_another_record_edits_is_no_locality_probe(tmp_path: Path) -> None:
    records = three()
    records[0] |= {"m_loc": records[1]["image"], "m_loc_q": records[1]["src"]}
    records[1] |= {"m_loc": records[2]["image"]}
    dataset = load("vlkeb", write_dataset(tmp_path, records))
    first, second, third = (set(prompts(case)) for case in dataset)
    assert third - first == {"image locality", "random image, same question"}
    assert third - second == {"random image, same question"}
    assert dataset.summary().edited_locality == 1


def test_one_hop_questions_join_the_edits_they_belong_to(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, three())
    write_json(folder / "eval_edit_onehop.json", [record(2, port_new=[HOP])])
    assert [len(r.hops) for r in load("vlkeb", folder).records] == [0, 1, 0]
    assert len(load("vlkeb", folder / "eval_edit_onehop.json")) == 1


def test_questions_over_several_hops_are_read_in_their_own_shape(tmp_path: Path) -> None:
    hops = [
        {"port_type": "1-hop", "Q&A": {"Question": "Where?", "Answer": "There"}},
        {"port_type": "2-hop", "Q&A": {"Question": "When?", "Answer": "Then"}},
    ]
    file = write_dataset(tmp_path, three(port_new=hops), file="eval_multihop.json")
    dataset = load("vlkeb", file / "eval_multihop.json")
    assert [hop.answer for hop in dataset.records[0].hops] == ["There", "Then"]
    assert dataset.summary().portability == 6


def test_the_summary_counts_what_deserves_care(tmp_path: Path) -> None:
    records = [*three(), record(1, alt="Elsewhere"), record(2, alt="Old Town, No 2")]
    records[2]["alt"] = ""
    summary = load("vlkeb", write_dataset(tmp_path, records)).summary()
    assert summary.records == 4
    assert summary.skipped == {"empty target": 1, "missing picture": 0}
    assert (summary.images, summary.images_edited_more_than_once) == (2, 2)
    assert summary.contradictions == 2
    assert summary.already_true == 1  # underscores are spaces
    assert "1 for empty target" in str(summary)


def test_answers_that_nobody_scores_may_be_absent(tmp_path: Path) -> None:
    records = three(m_loc_a=None, loc_ans=None, pred=None)
    assert len(load("evqa", write_dataset(tmp_path, records, file="vqa_eval.json"))) == 3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"alt": 7}, "field alt is a number; expected text"),
        ({"src": "  "}, "field src is blank"),
        ({"rephrase": None}, "field rephrase is null; expected text"),
        ({"image": "../secret.png"}, "expected a path below the image folder"),
        ({"m_loc": "/etc/passwd"}, "expected a path below the image folder"),
        ({"loc": "\ud800"}, "half a character"),
        ({"port_new": {"port_q": "?"}}, "field port_new is an object; expected a list"),
        ({"port_new": ["?"]}, "port_new[0] is text; expected an object"),
        ({"port_new": [{"port_q": "?"}]}, "field port_new[0].port_a is missing"),
        ({"port_new": [{"Q&A": {"Question": "?"}}]}, "field port_new[0].Q&A.Answer is missing"),
    ],
)
def test_a_fault_names_file_record_and_field(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    records = three()
    folder = write_dataset(tmp_path, records)
    file = write_json(folder / "eval.json", [records[0], records[1] | changes, records[2]])
    error = fails("vlkeb", folder)
    assert f"{file}, record 1: " in error.message
    assert told in error.message
    assert "docs/datasets.md" in error.hint


def test_all_faults_are_told_at_once_but_not_endlessly(tmp_path: Path) -> None:
    file = write_json(tmp_path / "eval.json", [{"alt": "x"}] * 14)
    error = fails("vlkeb", file)
    assert "record 0: field src is missing" in error.message
    assert "record 9: " in error.message
    assert "and 4 more records with faults" in error.message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[", "is not JSON"),
        (b"\xff[]", "is not UTF-8"),
        (b"{}", "holds an object; expected a list"),
        (b"[]", "holds no records"),
        (b'[{"alt": " "}]', "holds no record with a target"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_a_file_that_is_no_list_of_records(content: bytes, told: str, tmp_path: Path) -> None:
    file = tmp_path / "eval.json"
    file.write_bytes(content)
    assert told in fails("vlkeb", file).message


def test_a_folder_without_the_file_says_what_was_looked_for(tmp_path: Path) -> None:
    error = fails("evqa", tmp_path)
    assert "vqa/vqa_eval.json" in error.message
    assert "JSON file itself" in error.hint


def test_missing_pictures_are_an_error_or_left_out(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, three())
    (folder / "m.02/google_1.jpg").unlink()
    error = fails("vlkeb", folder)
    assert "record 1: field image_rephrase: there is no file" in error.message
    assert "missing_images='skip'" in error.hint
    kept = load("vlkeb", folder, missing_images="skip", limit=2)
    assert [record.index for record in kept.records] == [0, 2]
    assert kept.summary().skipped["missing picture"] == 1


def test_pictures_elsewhere_need_their_folder(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", three(), images="../photos")
    error = fails("vlkeb", folder / "eval.json")
    assert "m.01/bing_0.jpg" in error.message
    assert len(load("vlkeb", folder, images=tmp_path / "photos")) == 3


def test_a_damaged_picture_is_told_by_its_record(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, three())
    dataset = load("vlkeb", folder)
    (folder / "m.02/bing_0.jpg").write_bytes(b"GIF89a")
    assert dataset[0].target == "Newtown 1"  # pictures are decoded when asked for
    with pytest.raises(DatasetError, match=r"record 1: field image: .*bing_0.jpg is no readable"):
        dataset[1]


def test_leakage_is_counted_by_distinct_value_and_by_record(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, [*three(), record(1, src="Another?", alt="Newtown 1")])
    train = [
        record(1, image="m.01/other.jpg", image_rephrase="m.02/bing_0.jpg", rephrase="?"),
        record(3, image="m.99/x.jpg", alt="Newtown 2", src="Name  town 3."),
    ]
    write_json(folder / "train.json", train)
    found = load("vlkeb", folder).leakage()
    assert found is not None
    counts = {row.what: (row.found, row.distinct, row.records) for row in found.shared}
    assert counts["edited picture, among the edited"] == (0, 3, 0)
    assert counts["edited picture, anywhere"] == (1, 3, 1)
    assert counts["entity folder"] == (1, 3, 2)
    assert counts["prompt"] == (1, 4, 1)
    assert counts["target"] == (2, 3, 3)
    assert counts["rephrased prompt, among prompts and rephrasings"] == (1, 3, 1)
    assert counts["image locality picture and question"] == (2, 3, 3)
    assert "| target | 2 of 3 | 3 of 4 |" in str(found)
    assert found["target"].found == 2


def test_leakage_needs_a_train_file(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, three(), file="vqa/vqa_eval.json", images="images")
    dataset = load("evqa", folder / "vqa/vqa_eval.json")
    assert dataset.leakage() is None
    write_json(folder / "vqa/vqa_train.json", three())
    found = dataset.leakage()
    assert found is not None
    assert found["picture and prompt"].records == 3
    assert "entity folder" not in str(found)
    with pytest.raises(DatasetError):
        dataset.leakage(tmp_path / "nowhere")


def test_the_train_split_can_be_read_as_cases(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, three(), file="train.json")
    draw(folder, pictures_of(three()))
    assert len(load("vlkeb", folder, split="train")[:2]) == 2
