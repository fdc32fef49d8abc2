"""Keys of pictures made again: what image keys and sketches are where other eyes made those.

No part of history: a key follows from its picture and the eyes, so what is lost is made again. Of
each picture one key is kept, by the eyes that were loaded last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
import sqlalchemy as sa

from app.store import tables
from app.store.database import Database
from app.store.edit_log import EditLog
from app.store.records import digest_of
from editing_core.types import PictureKey

logger = logging.getLogger(__name__)

MakeKey = Callable[[bytes], tuple[str, PictureKey]]
"""Of a stored picture's bytes: the digest of its pixels, and its key."""

_REPORT_EVERY = 250


class PictureKeys:
    """Keys by picture, as the loaded model makes them. `made_by` names what makes them.

    Between `load` and `save`, on one thread, a missing key is made of its stored picture. `save`
    writes all that were made in one transaction: a process that is killed before has changed
    nothing, and the next one makes them again. Afterwards nothing is made any more.
    """

    def __init__(self, log: EditLog, *, made_by: str, make: MakeKey) -> None:
        self._log = log
        self._made_by = made_by
        self._make: MakeKey | None = make
        self._keys: dict[str, PictureKey] = {}
        self._fresh: dict[str, PictureKey] = {}
        self._noted: dict[str, PictureKey] = {}

    def load(self, database: Database) -> None:
        """Take the keys of `made_by`; a damaged one is as good as none."""
        query = sa.select(tables.picture_keys).where(tables.picture_keys.c.made_by == self._made_by)
        with database.read() as connection:
            for row in connection.execute(query).mappings():
                sketch = row["sketch"] or b""
                if digest_of(row["key"] + sketch) == row["digest"]:
                    self._keys[row["image_digest"]] = PictureKey(
                        np.frombuffer(row["key"], dtype="<f4").astype(np.float32),
                        np.frombuffer(sketch, dtype=np.int8).copy(),
                    )
                else:
                    logger.warning("the key of %s is damaged, and made again", row["image_digest"])

    def note(self, digest: str, key: PictureKey) -> None:
        """The key of a picture that an artifact of the same eyes holds, for artifacts to come."""
        if self._make is not None:
            self._noted.setdefault(digest, key)

    def get(self, digest: str) -> PictureKey:
        """The key of a stored picture. Raises `ValueError` where that is missing or damaged."""
        if digest in self._noted and digest not in self._keys:
            self._keys[digest] = self._fresh[digest] = self._noted[digest]
        if digest not in self._keys:
            if self._make is None:
                raise ValueError("its picture has no key of the eyes that are loaded")
            png = self._log.image(digest)
            if not self._fresh:
                logger.info("other eyes made keys of stored pictures: they are made again")
            found, key = ("", None) if png is None else self._make(png)
            if key is None or found != digest:
                raise ValueError("other eyes made its key, and its picture is missing or damaged")
            self._keys[digest] = self._fresh[digest] = key
            if len(self._fresh) % _REPORT_EVERY == 0:
                logger.info("keys of %d stored pictures are made again", len(self._fresh))
        return self._keys[digest]

    def save(self, database: Database) -> None:
        """Write what was made; keys of other eyes go."""
        self._make = None
        self._noted.clear()
        if not self._fresh:
            return
        kept = tables.picture_keys.c
        rows = _rows(self._fresh, self._made_by)
        with database.write() as connection:
            connection.execute(sa.delete(tables.picture_keys).where(kept.made_by != self._made_by))
            # One that was damaged is still there.
            same = kept.image_digest == sa.bindparam("same")
            connection.execute(
                sa.delete(tables.picture_keys).where(same),
                [{"same": row["image_digest"]} for row in rows],
            )
            connection.execute(sa.insert(tables.picture_keys), rows)
        logger.info("keys of %d stored pictures were made again", len(self._fresh))
        self._fresh = {}


def _rows(keys: Mapping[str, PictureKey], made_by: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for digest, key in keys.items():
        data, sketch = key.image.astype("<f4").tobytes(), key.sketch.tobytes()
        rows.append(
            {
                "image_digest": digest,
                "made_by": made_by,
                "key": data,
                "sketch": sketch,
                "digest": digest_of(data + sketch),
            }
        )
    return rows
