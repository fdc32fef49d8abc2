"""Whatever a dataset's file holds, it is read or refused by name; nothing else is raised."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editing_core.evaluation.datasets.base import Dataset, load
from editing_core.evaluation.datasets.records import DatasetError
from editing_core.evaluation.datasets.vlkeb import Vlkeb
from tests.support.datasets import draw, pictures_of, three

KEYS = [*three()[0], "port_new"]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Q&A", "Question", "Answer", "port_q", "port_a"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
changes = st.dictionaries(st.sampled_from(KEYS), values, max_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("vlkeb")
    draw(made, pictures_of(three()))
    return made


def attempt(file: Path) -> tuple[Dataset | None, DatasetError | None]:
    try:
        return load("vlkeb", file), None
    except DatasetError as error:
        return None, error


@given(changes=changes, index=st.integers(0, 2))
def test_a_spoilt_record_is_read_or_named(
    folder: Path, changes: dict[str, object], index: int
) -> None:
    records = three()
    records[index] |= changes
    file = folder / "eval.json"
    file.write_text(json.dumps(records), encoding="utf-8")
    dataset, error = attempt(file)
    if error is not None:
        assert f"record {index}" in error.message
        assert any(key in error.message for key in changes)
        assert error.hint
    for record in dataset.records if dataset else ():
        assert record.target == record.target.strip() != ""
        assert record.prompt


@given(content=values)
def test_any_json_at_all_is_records_or_a_dataset_error(folder: Path, content: object) -> None:
    file = folder / "any.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DatasetError):
        Vlkeb.read(file)


@given(content=st.binary(max_size=40))
def test_any_bytes_at_all_are_a_dataset_error(folder: Path, content: bytes) -> None:
    file = folder / "bytes.json"
    file.write_bytes(content)
    with pytest.raises(DatasetError, match=r"bytes\.json"):
        Vlkeb.read(file)
