"""Questions on the device: admitted a few at a time, and decoded together to their ends.

Each turn prefills what waits, as far as there is room, and then takes one decode step for every
row. Rows of several requests enter in turns, so that a request of many rows keeps nobody waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from app.device.messages import Begun, Done, Failed, Generate, Reply, Text
from editing_core.backbones.batch import PreparedRow
from editing_core.batching.batch import DecodeBatch
from editing_core.batching.beginnings import Beginnings
from editing_core.batching.rows import RowNews
from editing_core.editable_model import EditableModel
from editing_core.generation import GenerationRow
from editing_core.types import GenerationResult

PREFILL_TOKENS = 2048
"""What one turn prefills, padding counted, unless one row alone has more: others wait meanwhile."""

_OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)

Key = tuple[int, int]
"""A request's id, and which of its rows."""


@dataclass(slots=True, eq=False)
class _Answer:
    """What one request has come to. `waiting` rows have not begun."""

    id: int
    rows: Sequence[GenerationRow]
    waiting: deque[int]
    has_begun: bool = False
    prepared: PreparedRow | None = None
    """Of the first that waits, once it was looked at."""
    results: dict[int, GenerationResult] = field(default_factory=dict)


class RowScheduler:
    """Belongs on the device thread.

    At most `rows_at_once` rows decode together, with room for at most `tokens_at_once` tokens,
    unless one row alone needs more. A turn prefills `prefill_tokens`, see `PREFILL_TOKENS`. What
    rows begin with is kept in `beginnings_bytes`.
    """

    def __init__(
        self,
        model: EditableModel,
        reply: Callable[[Reply], None],
        *,
        rows_at_once: int,
        tokens_at_once: int,
        prefill_tokens: int = PREFILL_TOKENS,
        beginnings_bytes: int = 0,
    ) -> None:
        self._model = model
        self._beginnings = Beginnings(beginnings_bytes) if beginnings_bytes else None
        self._reply = reply
        self._rows_at_once = rows_at_once
        self._tokens_at_once = tokens_at_once
        self._prefill_tokens = prefill_tokens
        self._answers: dict[int, _Answer] = {}
        self._queue: deque[_Answer] = deque()
        self._batches: list[DecodeBatch[Key]] = []
        self._room: dict[Key, int] = {}
        """Tokens that each running row may come to."""

    @property
    def is_busy(self) -> bool:
        return bool(self._answers)

    @property
    def begun(self) -> frozenset[int]:
        """Requests of which a row has begun. From any thread."""
        return frozenset(each.id for each in list(self._answers.values()) if each.has_begun)

    def add(self, request: Generate) -> None:
        """Queue it behind those that wait."""
        answer = _Answer(request.id, request.rows, deque(range(len(request.rows))))
        if not request.rows:
            self._reply(Done(request.id, []))
            return
        self._answers[request.id] = answer
        self._queue.append(answer)

    def cancel(self, request_id: int) -> None:
        """Let all of its rows go."""
        answer = self._answers.pop(request_id, None)
        if answer is None:
            return
        if answer in self._queue:
            self._queue.remove(answer)
        gone = {key for key in self._room if key[0] == request_id}
        for key in gone:
            del self._room[key]
        for batch in self._batches:
            batch.drop(gone)

    def turn(self) -> None:
        """Prefill what there is room for, then one decode step for every row."""
        entering = self._entering()
        if self._model.rows_join:
            self._begin(entering)
        else:
            self._begin_one_by_one(entering)
        for batch in list(self._batches):
            self._step(batch)
        self._batches = [batch for batch in self._batches if batch.keys]

    # --- entering ---------------------------------------------------------------------------

    def _entering(self) -> dict[Key, PreparedRow]:
        """The rows that begin now, each request's next one in turn."""
        chosen: dict[Key, PreparedRow] = {}
        widest = 0
        while self._queue and len(self._room) < self._rows_at_once:
            answer = self._queue[0]
            number = answer.waiting[0]
            row = answer.rows[number]
            try:
                prepared = answer.prepared or self._model.prepare(row)
            except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the sender
                self._fail(answer.id, error)
                continue
            answer.prepared = prepared
            needed = len(prepared.ids) + row.sampling.max_new_tokens
            width = max(widest, len(prepared.ids))
            is_too_much = (
                sum(self._room.values()) + needed > self._tokens_at_once
                or (len(chosen) + 1) * width > self._prefill_tokens
            )
            if is_too_much and (chosen or self._room):
                break
            widest, answer.prepared = width, None
            answer.waiting.popleft()
            answer.has_begun = True
            self._queue.rotate(-1)
            if not answer.waiting:
                self._queue.remove(answer)
            chosen[answer.id, number] = prepared
            self._room[answer.id, number] = needed
            self._reply(Begun(answer.id, number))
        return chosen

    def _begin(self, entering: Mapping[Key, PreparedRow]) -> None:
        """Prefill them together; if that fails, apart, so that each failure is its own row's.

        A row whose guess is right ends here.
        """
        rows = {key: self._answers[key[0]].rows[key[1]] for key in entering if key in self._room}
        if not rows:
            return
        try:
            found = self._model.confirm([entering[key] for key in rows], rows)
            left = {key: row for key, row in rows.items() if key not in found}
            batch = None
            if left:
                batch = self._model.begin(
                    [entering[key] for key in left], left, beginnings=self._beginnings
                )
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the sender
            if isinstance(error, _OUT_OF_MEMORY) and self._gives_memory_back():
                self._begin(entering)
            elif len(rows) > 1:
                self._begin_one_by_one(entering)
            else:
                self._fail(next(iter(rows))[0], error)
            return
        self._hear([RowNews(key, result.text, result) for key, result in found.items()])
        if batch is None:
            return
        if self._batches and self._model.rows_join:
            self._batches[0].join(batch)
        else:
            self._batches.append(batch)
        self._hear(batch.news)

    def _gives_memory_back(self) -> bool:
        """Whether something was kept that could be let go."""
        if self._beginnings is None or not self._beginnings.nbytes:
            return False
        self._beginnings.clear()
        return True

    def _begin_one_by_one(self, entering: Mapping[Key, PreparedRow]) -> None:
        for key, prepared in entering.items():
            self._begin({key: prepared})

    # --- decoding ---------------------------------------------------------------------------

    def _step(self, batch: DecodeBatch[Key]) -> None:
        if not batch.keys:
            return
        try:
            news = batch.step()
        except Exception as error:  # noqa: BLE001 - whosever it is, all its rows are lost
            self._batches.remove(batch)
            for request_id in {request_id for request_id, _ in batch.keys}:
                self._fail(request_id, error)
            return
        self._hear(news)

    def _hear(self, news: Sequence[RowNews[Key]]) -> None:
        for each in news:
            answer = self._answers.get(each.key[0])
            if answer is None:  # another row of its request failed in the same step
                continue
            if each.text:
                self._reply(Text(answer.id, each.key[1], each.text))
            if each.error is not None:
                self._fail(answer.id, each.error)
            elif each.result is not None:
                self._end(answer, each.key[1], each.result)

    def _end(self, answer: _Answer, row: int, result: GenerationResult) -> None:
        del self._room[answer.id, row]
        answer.results[row] = result
        if len(answer.results) == len(answer.rows):
            del self._answers[answer.id]
            self._reply(Done(answer.id, [answer.results[row] for row in range(len(answer.rows))]))

    def _fail(self, request_id: int, error: Exception) -> None:
        self.cancel(request_id)
        self._reply(Failed(request_id, error))
