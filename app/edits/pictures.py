"""The pictures of edits as they are shown: whole, or as thumbnails made when asked for."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from app.edits.catalogue import Catalogue
from app.edits.trial import stored_picture
from app.history import History
from app.images import ImageDecoder, thumbnail_of

_KEPT_THUMBNAILS = 512


class EditPictures:
    """One per process; lives on the event loop's thread."""

    def __init__(self, *, history: History, catalogue: Catalogue, decoder: ImageDecoder) -> None:
        self._history = history
        self._catalogue = catalogue
        self._decoder = decoder
        self._thumbnails: OrderedDict[str, bytes] = OrderedDict()

    async def digest(self, edit_id: str) -> str:
        """That of a committed edit's pixels. Raises `EditNotFound` and `EditNotCommitted`."""
        await self._catalogue.require_committed(edit_id)
        return (await self._catalogue.committed(edit_id)).image_digest

    async def png(self, edit_id: str) -> bytes:
        """The picture as it is stored. Raises `InternalError` where it is damaged."""
        return await asyncio.to_thread(stored_picture, self._history.log, edit_id)

    async def thumbnail(self, edit_id: str, digest: str) -> bytes:
        """The picture of that digest, small, as WebP."""
        if digest not in self._thumbnails:
            async with self._decoder.reopen(await self.png(edit_id), digest) as pixels:
                self._thumbnails[digest] = await asyncio.to_thread(thumbnail_of, pixels)
            while len(self._thumbnails) > _KEPT_THUMBNAILS:
                self._thumbnails.popitem(last=False)
        self._thumbnails.move_to_end(digest)
        return self._thumbnails[digest]
