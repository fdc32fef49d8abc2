"""A store with any number of edits, filled in minutes: made up, and valid in every byte.

    python -m benchmarks.many_edits FOLDER --edits 20000

Pictures are drawn emblems that differ in a few values, artifacts are one real artifact under image
keys of its own. All go through the store's own functions, so that seals, digests and chain are what
a server would have written; only many versions share a transaction.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from app.images import encode_png
from app.store.commits import Created, Stamp
from app.store.database import Database
from app.store.edit_log import EditLog
from app.store.ledger import Change
from app.store.records import EditRecord, StoredImage
from app.ulid import UlidSequence
from editing_core.editable_model import EditableModel
from editing_core.experts.codec import encode_artifact
from editing_core.heraldry.sample import draw_sample
from editing_core.identity import image_digest
from editing_core.types import EditArtifact, EditRequest, ImageArray

PROMPT = "What colour is the field?"
_DRAWN = 16
_TOGETHER = 500


def picture(number: int) -> ImageArray:
    """The picture of edit `number`; it differs from all others."""
    image = _drawn(number % _DRAWN).copy()
    image[0, 0] = (number % 256, number // 256 % 256, number // 65_536)
    return image


@cache
def _drawn(number: int) -> ImageArray:
    return draw_sample(70_000 + number).picture.image


def one_artifact(model: EditableModel) -> EditArtifact:
    """A real edit's, to be copied."""
    return model.encode(EditRequest(picture(0), PROMPT, "blue"))


def fill(file: Path, edits: int, artifact: EditArtifact) -> None:
    """Append `edits` new edits, each on a picture and with an image key of its own."""
    database = Database.open(f"sqlite:///{file}")
    log = EditLog(database)
    checked = log.audit()
    head, digest = checked.ledger.head, checked.last.digest if checked.last else None
    made = created(head, edits, artifact)
    for _ in range(0, edits, _TOGETHER):
        together = [commit for _, commit in zip(range(_TOGETHER), made, strict=False)]
        digest = log.append_all(
            together,
            Stamp(
                version=head + 1,
                at="2026-11-27T00:00:00.000Z",
                actor="local",
                request_id="made-up",
                previous_digest=digest,
            ),
        ).digest
        head += len(together)
    database.close()


def created(head: int, edits: int, artifact: EditArtifact) -> Iterator[Created]:
    """What makes `edits` new edits after version `head`, one after another."""
    ids, rng = UlidSequence(after=None), np.random.default_rng(head)
    for version in range(head + 1, head + edits + 1):
        pixels = picture(version)
        digest = image_digest(pixels)
        height, width, _ = pixels.shape
        key = rng.standard_normal(len(artifact.key.image)).astype(np.float32)
        own = replace(artifact, key=replace(artifact.key, image=key / np.linalg.norm(key)))
        record = EditRecord(
            id=ids.next(),
            version=version,
            editor=artifact.editor,
            prompt=PROMPT,
            target=f"blue {version}",
            image_digest=digest,
            before="red",
            after="blue",
            verified=True,
            verified_version=version - 1,
            created_at="2026-11-27T00:00:00.000Z",
            created_by="local",
        )
        yield Created(
            changes=(Change(record.id, None, "active"),),
            record=record,
            artifact=encode_artifact(own),
            image=StoredImage(digest, encode_png(pixels), width, height),
            timings_ms=lambda: {"total": 1.0},
        )


def main() -> None:
    """Fill the folder's database; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--edits", type=int, default=20_000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    fill(options.folder / "errata.db", options.edits, one_artifact(EditableModel.load()))
    print(f"{options.edits} edits in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
