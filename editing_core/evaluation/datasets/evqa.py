"""E-VQA (MMEdit): short answers to questions about COCO photographs.

One photograph carries up to 13 edits, so a picture alone does not say which edit is meant.
https://github.com/zjunlp/EasyEdit, "Can We Edit Multimodal Large Language Models?" (EMNLP 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from editing_core.evaluation.datasets.base import Dataset, Split


class EVqa(Dataset):
    """See the module's docstring."""

    name: ClassVar[str] = "evqa"
    question_kind: ClassVar[str] = "vqa"
    files: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "eval": ("vqa_eval.json", "vqa/vqa_eval.json", "editing-data/vqa/vqa_eval.json"),
        "train": ("vqa_train.json", "vqa/vqa_train.json", "editing-data/vqa/vqa_train.json"),
    }
    image_folders: ClassVar[tuple[str, ...]] = ("images", ".")
