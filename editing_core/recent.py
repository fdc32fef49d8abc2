"""What was made lately and may be wanted again, bounded by its size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Values by key, of `limit` in size altogether; what was not wanted for longest goes first.

    Sizes are whatever the caller counts: things, or bytes. Thread-safe.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Of all that is kept."""
        return self._size

    def get(self, key: Key) -> Value | None:
        """The value, which is now the newest, or None."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: Key, value: Value, size: int = 1) -> None:
        """Keep it, in place of an older one. What is larger than the limit is not kept."""
        with self._lock:
            self._drop(key)
            if size > self.limit:
                return
            self._kept[key] = (value, size)
            self._size += size
            while self._size > self.limit:
                self._drop(next(iter(self._kept)))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._size = 0

    def _drop(self, key: Key) -> None:
        gone = self._kept.pop(key, None)
        if gone is not None:
            self._size -= gone[1]
