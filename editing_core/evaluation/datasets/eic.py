"""E-IC (MMEdit): captions of COCO photographs, every one asked for by the same prompt.

Only the picture can tell its edits apart, and their targets are sentences.
https://github.com/zjunlp/EasyEdit, "Can We Edit Multimodal Large Language Models?" (EMNLP 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from editing_core.evaluation.datasets.base import Dataset, Split


class EIc(Dataset):
    """See the module's docstring."""

    name: ClassVar[str] = "eic"
    question_kind: ClassVar[str] = "caption"
    files: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "eval": (
            "caption_eval_edit.json",
            "caption/caption_eval_edit.json",
            "editing-data/caption/caption_eval_edit.json",
        ),
        "train": (
            "caption_train_edit.json",
            "caption/caption_train_edit.json",
            "editing-data/caption/caption_train_edit.json",
        ),
    }
    image_folders: ClassVar[tuple[str, ...]] = ("images", ".")
