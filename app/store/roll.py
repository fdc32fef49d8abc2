"""Every committed edit in the order of ids, with the status that is said of it.

A list and one byte an edit: a page of any status is cut out without looking at edits one by one,
and how many edits have a status is known at any time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from app.store.ledger import EditStatus

_STATUSES: tuple[EditStatus, ...] = ("active", "superseded", "rolled_back", "stale", "quarantined")
_CODES = {status: code for code, status in enumerate(_STATUSES)}


class Roll:
    """One thread writes; any may read."""

    def __init__(self, edits: Iterable[tuple[str, EditStatus]] = ()) -> None:
        """`edits` in any order, each once."""
        in_order = sorted(edits)
        self._ids = [edit_id for edit_id, _ in in_order]
        self._codes = bytearray(_CODES[status] for _, status in in_order)

    def __contains__(self, edit_id: object) -> bool:
        place = bisect_left(self._ids, str(edit_id))
        return self._ids[place : place + 1] == [edit_id]

    def __len__(self) -> int:
        return len(self._ids)

    def status(self, edit_id: str) -> EditStatus:
        """Raises `KeyError` on an unknown id."""
        place = bisect_left(self._ids, edit_id)
        if self._ids[place : place + 1] != [edit_id]:
            raise KeyError(edit_id)
        return _STATUSES[self._codes[place]]

    def put(self, edit_id: str, status: EditStatus) -> None:
        """An edit that is new, or has another status now. New ones come last, as a rule."""
        place = bisect_left(self._ids, edit_id)
        if self._ids[place : place + 1] == [edit_id]:
            self._codes[place] = _CODES[status]
        else:
            self._ids.insert(place, edit_id)
            self._codes.insert(place, _CODES[status])

    def count(self, status: EditStatus) -> int:
        return self._codes.count(_CODES[status])

    def newest(
        self, *, status: EditStatus | None = None, below: str | None = None, limit: int
    ) -> list[str]:
        """Up to `limit` ids, newest first, older than the id `below`; of any status if None."""
        end = len(self._ids) if below is None else bisect_left(self._ids, below)
        if status is None:
            return self._ids[max(0, end - limit) : end][::-1]
        found: list[str] = []
        while len(found) < limit and (end := self._codes.rfind(_CODES[status], 0, end)) >= 0:
            found.append(self._ids[end])
        return found
