"""VLKEB: photographs of entities from a knowledge graph, each edited to be another entity.

Where its folder also holds `eval_edit_onehop.json`, the questions there become portability probes
of the same edits. Answers before the edit have underscores for spaces, as in `Laredo,_Texas`.
https://github.com/VLKEB/VLKEB, "VLKEB: A Large Vision-Language Model Knowledge Editing Benchmark"
(NeurIPS 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from editing_core.evaluation.datasets.base import Dataset, Split
from editing_core.evaluation.datasets.records import Fields, Hop, Record

_ONE_HOP = "eval_edit_onehop.json"


class Vlkeb(Dataset):
    """See the module's docstring."""

    name: ClassVar[str] = "vlkeb"
    question_kind: ClassVar[str] = "entity"
    files: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "eval": ("eval.json", "VLKEB/eval.json", _ONE_HOP),
        "train": ("train.json", "VLKEB/train.json"),
    }
    image_folders: ClassVar[tuple[str, ...]] = (
        "mmkb_images",
        "VLKEB_images/mmkb_images",
        "images",
        ".",
    )
    folders_are_entities: ClassVar[bool] = True

    @classmethod
    def read(cls, file: Path) -> tuple[list[Record], int]:
        """As every dataset, with the one-hop questions that lie beside `eval.json`."""
        records, empty = super().read(file)
        beside = file.parent / _ONE_HOP
        if file.name != "eval.json" or not beside.is_file():
            return records, empty
        hops = {_identity(record): record.hops for record in super().read(beside)[0]}
        return [replace(r, hops=r.hops or hops.get(_identity(r), ())) for r in records], empty

    @classmethod
    def read_record(cls, index: int, fields: Fields) -> Record:
        """The common keys, and `port_new` in either of its published shapes."""
        record = super().read_record(index, fields)
        before = record.before and record.before.replace("_", " ")
        return replace(record, before=before, hops=_hops(fields))


def _hops(fields: Fields) -> tuple[Hop, ...]:
    """One hop: `port_q`, `port_a`. Several: `Q&A` with `Question`, `Answer`, and a `port_type`."""
    if not fields.has("port_new"):
        return ()
    hops = []
    for number, item in enumerate(fields.items("port_new")):
        entry = Fields(item, within=f"port_new[{number}]")
        if entry.has("Q&A"):
            pair = entry.within("Q&A")
            hops.append(Hop(pair.text("Question"), pair.text("Answer")))
        else:
            hops.append(Hop(entry.text("port_q"), entry.text("port_a")))
    return tuple(hops)


def _identity(record: Record) -> tuple[str, str, str]:
    return record.image, record.prompt, record.target
