"""A tiny sentence encoder with random weights and a tiny corpus: enough to train and load one."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from editing_core.questions.corpus import split_of

WORDS = ("what", "is", "the", "capital", "river", "of", "this", "name", "flag", "who", "rules", "?")


def write_base(folder: Path) -> Path:
    """A BERT of one block, as Hugging Face stores it."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=160,
    )
    BertModel(shape).save_pretrained(folder)
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def write_corpus(folder: Path) -> Path:
    """Five topics to train on, one to validate and one to test, two intents each."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"train": 5, "validation": 1, "test": 1}
    lines: list[str] = []
    for number in range(200):
        topic = f"topic {number}"
        split = split_of(topic)
        if wanted[split] == 0:
            continue
        wanted[split] -= 1
        for intent in ("capital", "river"):
            other = "river" if intent == "capital" else "capital"
            lines.append(
                json.dumps(
                    {
                        "topic": topic,
                        "intent": intent,
                        "wordings": [
                            f"what is the {intent} of this {'the ' * i}?" for i in range(12)
                        ],
                        "confusables": [f"who rules the {other} {'of ' * i}?" for i in range(10)],
                    }
                )
            )
    (folder / "tiny.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder
