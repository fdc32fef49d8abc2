"""A queue of rows driven through a `DecodeBatch` by hand, for tests."""

from __future__ import annotations

from collections.abc import Sequence

from editing_core.batching.batch import DecodeBatch
from editing_core.batching.beginnings import Beginnings
from editing_core.batching.rows import RowNews
from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.types import GenerationResult


class Driver:
    """One running batch, and what it has given out so far by key."""

    def __init__(self, model: EditableModel, beginnings: Beginnings | None = None) -> None:
        self.model = model
        self.beginnings = beginnings
        self.batch: DecodeBatch[int] | None = None
        self.texts: dict[int, str] = {}
        self.results: dict[int, GenerationResult] = {}
        self.errors: dict[int, Exception] = {}

    def enter(self, rows: dict[int, GenerationRow]) -> None:
        """Prefill `rows` together and let them join."""
        prepared = [self.model.prepare(row) for row in rows.values()]
        begun = self.model.begin(prepared, rows, beginnings=self.beginnings)
        self._hear(begun.news)
        if self.batch is None:
            self.batch = begun
        else:
            self.batch.join(begun)

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            if self.batch is not None and self.batch.keys:
                self._hear(self.batch.step())

    def finish(self) -> dict[int, GenerationResult]:
        while self.batch is not None and self.batch.keys:
            self.step()
        return self.results

    def _hear(self, news: Sequence[RowNews[int]]) -> None:
        for each in news:
            assert each.key not in self.results
            if each.error is not None:
                self.errors[each.key] = each.error
            self.texts[each.key] = self.texts.get(each.key, "") + each.text
            if each.result is not None:
                self.results[each.key] = each.result
                assert self.texts[each.key] == each.result.text
