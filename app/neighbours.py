"""The pictures of a story's neighbours: any number of them, and a bounded number of their pixels.

A neighbour's picture may be as large as any, a story may have dozens, and who asked for it holds a
picture of its own. So the story gets stand-ins, and rows get the pixels when they are answered.
Pictures that were decoded last are kept for the stories to come, for edits of one kind come in
rows, and have the same neighbours; large ones are decoded each time they are asked about.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.decoding import MAX_PIXELS
from app.errors import InternalError, ServiceError, StoreDamaged
from app.images import ImageDecoder, check_size
from app.store.edit_log import EditLog
from app.store.records import EditRecord
from editing_core.generation import GenerationRow
from editing_core.refinement import Wanted
from editing_core.stories import Neighbour
from editing_core.types import ImageArray

SHOWN_PIXELS = MAX_PIXELS
KEPT_PIXELS = MAX_PIXELS // 2
_LARGE = 8
"""A picture that has more than this part of what is kept would drive too many others out."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where a picture is read again: the original of this edit, so many pixels."""

    edit_id: str
    digest: str
    pixels: int


class KeptPictures:
    """The pictures that any story decoded last, by their digests; `KEPT_PIXELS` of them in all.

    Belongs to one thread. A picture is never changed by whoever has it.
    """

    def __init__(self) -> None:
        self._images: OrderedDict[str, ImageArray] = OrderedDict()
        self._pixels = 0

    def __contains__(self, digest: str) -> bool:
        return digest in self._images

    def get(self, digest: str) -> ImageArray | None:
        if digest in self._images:
            self._images.move_to_end(digest)
        return self._images.get(digest)

    def keep(self, digest: str, image: ImageArray) -> bool:
        """Whether there is room for it; what was not used for longest makes room."""
        pixels = image.size // 3
        if pixels > KEPT_PIXELS // _LARGE:
            return False
        self._images[digest] = image
        self._pixels += pixels
        while self._pixels > KEPT_PIXELS:
            _, gone = self._images.popitem(last=False)
            self._pixels -= gone.size // 3
        return True


class Neighbours:
    """Of one story. Lives on the event loop's thread, except for `fetch`."""

    def __init__(self, log: EditLog, decoder: ImageDecoder, kept: KeptPictures) -> None:
        self._log = log
        self._decoder = decoder
        self._kept = kept
        self._stand_ins: dict[str, ImageArray] = {}
        self._stored: dict[int, _Stored] = {}

    def fetch(self, edit_ids: Sequence[str]) -> list[Neighbour]:
        """What these edits were made of, with stand-ins for their pictures. Blocking.

        Raises `InternalError` where a picture is damaged.
        """
        found = []
        for edit_id in edit_ids:
            record, png = self._original(edit_id)
            if record.image_digest not in self._stand_ins:
                made = self._stand_ins[record.image_digest] = np.zeros((1, 1, 3), dtype=np.uint8)
                try:
                    width, height = check_size(png)
                except ServiceError as error:
                    raise _damaged(record.id) from error
                self._stored[id(made)] = _Stored(edit_id, record.image_digest, width * height)
            image = self._stand_ins[record.image_digest]
            found.append(Neighbour(record.id, image, record.prompt, record.target))
        return found

    def _original(self, edit_id: str) -> tuple[EditRecord, bytes]:
        ((record, png),) = self._log.originals([edit_id])
        if png is None:
            raise _damaged(record.id)
        return record, png

    async def shown(self, rows: Sequence[GenerationRow]) -> AsyncIterator[list[GenerationRow]]:
        """The rows in their order, with pixels; as many at a time as these allow."""
        group: list[GenerationRow] = []
        pixels: dict[int, ImageArray] = {}
        for row in rows:
            if self._size(row, pixels) > SHOWN_PIXELS:
                yield group
                group, pixels = [], {}
            group.append(await self._with_pixels(row, pixels))
        yield group

    async def wanted(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        """Those whose pictures are large together are left out after the first.

        An edit that is refined without them is tried with them all the same.
        """
        pixels: dict[int, ImageArray] = {}
        return [
            replace(each, row=await self._with_pixels(each.row, pixels))
            for each in wanted
            if self._size(each.row, pixels) <= SHOWN_PIXELS
        ]

    def _size(self, row: GenerationRow, pixels: dict[int, ImageArray]) -> int:
        """What is held for `pixels`, and for this row as well; 0 if it is the first."""
        name = id(row.image)
        if name not in self._stored or name in pixels or not pixels:
            return 0
        if self._stored[name].digest in self._kept:
            return 0
        return self._stored[name].pixels + sum(each.size // 3 for each in pixels.values())

    async def _with_pixels(
        self, row: GenerationRow, pixels: dict[int, ImageArray]
    ) -> GenerationRow:
        name = id(row.image)
        if name not in self._stored:  # the edit's own picture, or none
            return row
        stored = self._stored[name]
        image = pixels.get(name)
        if image is None:
            image = self._kept.get(stored.digest)
        if image is None:
            record, png = await asyncio.to_thread(self._original, stored.edit_id)
            try:
                image = await self._decoder.restore(png, record.image_digest)
            except StoreDamaged as error:
                raise _damaged(record.id) from error
            if not self._kept.keep(stored.digest, image):
                pixels[name] = image
        return replace(row, image=image)


def _damaged(edit_id: str) -> InternalError:
    return InternalError(
        f"The stored picture of edit {edit_id} is damaged, so nobody can tell "
        "whether another edit would change its answer.",
        hint=f"Restore the database, roll {edit_id} back, or skip the check.",
    )
