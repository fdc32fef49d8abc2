"""Many edits in one request: one after another, a line for each as it is committed or refused."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from typing import Any

from app.deps import idempotency_key, validate
from app.edits.edit import Answer
from app.errors import InvalidField, QueueFull, ServiceError
from app.handlers import as_service_error, error_body
from app.history import Caller
from app.schemas.edits import EditCreate, body_of_answer
from app.service import EditingService
from app.streaming import one_line

logger = logging.getLogger(__name__)

_KEY = "idempotency_key"


class BatchRun:
    """The items of one batch, in order. One that fails takes nothing else down."""

    def __init__(
        self,
        service: EditingService,
        items: Sequence[Any],
        caller: Caller,
        *,
        refusal: Callable[[], ServiceError | None],
        log: MutableMapping[str, Any],
    ) -> None:
        self._service = service
        self._items = items
        self._caller = caller
        self._refusal = refusal
        self._log = log

    async def lines(self) -> AsyncIterator[str]:
        """One JSON line an item, then one with the count."""
        committed = 0
        for index, item in enumerate(self._items):
            is_committed, line = await self._line(index, item)
            committed += is_committed
            yield one_line(line)
        counts = {"committed": committed, "failed": len(self._items) - committed}
        self._log.update(counts)
        yield _json({"done": True, "version": self._service.history.head, **counts})

    async def _line(self, index: int, item: Any) -> tuple[bool, str]:
        try:
            if (refusal := self._refusal()) is not None:  # the server drains: later ones get told
                raise refusal
            draft, key = _read(item)
            answer = await self._create(draft, key)
        except Exception as error:  # noqa: BLE001 - it belongs to this item; the others go on
            told = as_service_error(error)
            body = error_body(told, self._caller.request_id)
            return False, _json({"index": index, "status": told.status, **body})
        head = _json({"index": index, "status": answer.status})
        replayed = ', "idempotent_replayed": true' if answer.is_replay else ""
        line = f'{head.rstrip()[:-1]}, "edit": {body_of_answer(answer)}{replayed}}}\n'
        return answer.status == 201, line

    async def _create(self, draft: EditCreate, key: str | None) -> Answer:
        """A batch waits: for room in the queue, and for an edit that takes long."""
        while True:
            try:
                return await self._service.queue.create(
                    draft.order(), draft.image, key=key, caller=self._caller, patient=True
                )
            except QueueFull as full:
                await asyncio.sleep(full.retry_after_s or 1)


def _read(item: Any) -> tuple[EditCreate, str | None]:
    """An edit as `POST /edits` takes it, and the key that would be in its header."""
    if not isinstance(item, dict):
        raise InvalidField("Each of the edits must be a JSON object.", param="edits")
    key = item.get(_KEY)
    if key is not None and not isinstance(key, str):
        raise InvalidField(f"{_KEY} must be text.", param=_KEY)
    fields = {name: value for name, value in item.items() if name != _KEY}
    return validate(EditCreate, fields), idempotency_key(key, param=_KEY)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
