"""What a model is, told from its files: its tensors, and the settings that loading reads.

A name is made of these and of nothing else. So a licence or a training's notes beside the weights,
the number of files that weights are cut into, and the layout of a JSON file do not change it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editing_core.errors import CheckpointCorrupt, CheckpointMissing

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SETTINGS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_READ_BESIDE = ("qformer_tokenizer",)
"""Folders of settings in a model's folder: InstructBLIP's."""
_WRITTEN_BY_THE_WAY = {"transformers_version", "_name_or_path", "dtype", "torch_dtype"}
"""Entries that say who wrote a JSON file, and in which type: `Placement` says what is read."""

_CHUNK = 8 * 2**20
_READERS = 4


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor's place in a file, and what the file's header says of it."""

    path: Path
    name: str
    kind: str
    start: int
    size: int

    def line(self) -> str:
        """Its name, type and shape, and the digest of its numbers."""
        digest, left = hashlib.sha256(), self.size
        with self.path.open("rb") as stream:
            stream.seek(self.start)
            while left > 0 and (chunk := stream.read(min(_CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
        return f"{self.name} {self.kind} {digest.hexdigest()}"


def fingerprint_contents(*folders: Path) -> str:
    """Identity of the models in `folders`, together: `sha256:...`.

    It is the same on every machine, wherever the folders lie. Raises `CheckpointCorrupt` and
    `CheckpointMissing` naming a weight file.
    """
    total = hashlib.sha256(b"errata-backbone-v2\n")
    for position, folder in enumerate(folders):
        for line in sorted((*_tensor_lines(folder), *_setting_lines(folder))):
            total.update(f"{position}/{line}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _tensor_lines(folder: Path) -> list[str]:
    tensors = [tensor for path in _weight_files(folder) for tensor in _tensors(path)]
    # Hashing lets other threads run: several read a large model as fast as a disk gives it.
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(_Tensor.line, tensors))


def _weight_files(folder: Path) -> list[Path]:
    """Those that transformers would read: one, or the shards of an index."""
    index = folder / _INDEX
    if (folder / _WEIGHTS).is_file() or not index.is_file():
        return [path for path in (folder / _WEIGHTS,) if path.is_file()]
    try:
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointCorrupt(f"{index} is damaged: {error!r}") from error
    for name in sorted(names):
        if not (folder / name).is_file():
            raise CheckpointMissing(f"{folder / name} is listed in {_INDEX} but is not there")
    return sorted(folder / name for name in names)


def _tensors(path: Path) -> Iterator[_Tensor]:
    """Of one safetensors file, by its header: its length in 8 bytes, then JSON."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            kind = f"{entry['dtype']} {list(map(int, entry['shape']))}"
            yield _Tensor(path, name, kind, 8 + length + start, end - start)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointCorrupt(f"{path} is damaged: {error}") from error


def _setting_lines(folder: Path) -> Iterator[str]:
    for place in (folder, *(folder / name for name in _READ_BESIDE)):
        for name in _SETTINGS:
            if (path := place / name).is_file():
                digest = hashlib.sha256(_plain(path)).hexdigest()
                yield f"{path.relative_to(folder).as_posix()} {digest}"


def _plain(path: Path) -> bytes:
    """A file's bytes; of JSON what it says, however it is written."""
    data = path.read_bytes()
    if path.suffix != ".json":
        return data
    try:
        said = json.loads(data, object_pairs_hook=_less_its_writer)
    except ValueError:
        return data  # whoever reads it will refuse it
    return json.dumps(said, sort_keys=True).encode()


def _less_its_writer(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if name not in _WRITTEN_BY_THE_WAY}
