"""Rows that decode together and come and go between steps, each with experts and sampling its own.

    batch = Entrance(...).enter(rows)                # prefill, see `entering.py`
    batch.join(another)                              # where `cache.can_join`
    for news in batch.step(): ...                    # one new token a row; rows that end leave
    batch.drop({key})                                # and so do rows that nobody waits for

Greedy tokens of a row are those it has alone; its logits differ by rounding only, since other
shapes add up in another order.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Generic

import torch
from torch import Tensor

from editing_core.backbones.base import Backbone
from editing_core.backbones.passes import DecodeState
from editing_core.batching import cache
from editing_core.batching.rows import Key, RowNews, RunningRow
from editing_core.decode_taps import DecodeTaps
from editing_core.generation import are_finite, not_finite


class DecodeBatch(Generic[Key]):
    """See the module's docstring. Belongs on the thread that runs the model.

    `logits` float32 `[rows, vocab]`, `state` and `experts` are what prefilling the rows left.
    """

    def __init__(
        self,
        backbone: Backbone,
        rows: Sequence[RunningRow[Key]],
        logits: Tensor,
        state: DecodeState,
        experts: DecodeTaps,
    ) -> None:
        self._backbone = backbone
        self._rows = list(rows)
        self._state = state
        self._experts = experts
        self.news = self._take(logits)
        """What prefill brought."""

    @property
    def keys(self) -> list[Key]:
        """Of the rows that are not at their ends."""
        return [row.key for row in self._rows]

    def join(self, other: DecodeBatch[Key]) -> None:
        """Take over the rows of `other`, which is used up. For models whose rows `can_join`."""
        if other._rows:
            self._state = cache.join([self._state, other._state]) if self._rows else other._state
            self._experts.join(other._experts, len(self._rows))
            self._rows += other._rows

    def take_in(self, other: DecodeBatch[Key]) -> None:
        """`join`, with the news of its prefill."""
        self.join(other)
        self.news += other.news

    def drop(self, keys: Collection[Key]) -> None:
        """Let these rows go, as far as they are here."""
        self._keep([b for b, row in enumerate(self._rows) if row.key not in keys])

    @torch.no_grad()
    def step(self) -> list[RowNews[Key]]:
        """One new token for every row. What fails as a whole leaves no row usable."""
        taps = self._experts.at([row.step for row in self._rows])
        tokens = torch.tensor([row.token for row in self._rows], device=self._backbone.device)
        logits = self._backbone.decode(tokens, self._state, taps=taps)
        return self._take(logits)

    def _take(self, logits: Tensor) -> list[RowNews[Key]]:
        """Choose each row's next token; those that end with it leave."""
        news = []
        for row, line, is_finite in zip(self._rows, logits, are_finite(logits), strict=True):
            if is_finite:
                news.append(_taken(row, line))
            else:
                news.append(RowNews(row.key, error=not_finite(row.decision)))
        self._keep([b for b, each in enumerate(news) if not each.is_last])
        return news

    def _keep(self, kept: Sequence[int]) -> None:
        if len(kept) == len(self._rows):
            return
        self._rows = [self._rows[b] for b in kept]
        self._experts.keep(kept)
        if kept:
            self._state = cache.select(self._state, kept)


def _taken(row: RunningRow[Key], logits: Tensor) -> RowNews[Key]:
    """The row with its next token, chosen from `[vocab]`."""
    text = ""
    if row.writer.finish_reason is None:
        try:
            row.token, text = row.writer.take(logits)
        except Exception as error:  # noqa: BLE001 - such as a grammar's: it is this row's alone
            return RowNews(row.key, error=error)
        row.step += 1
    is_over = row.writer.finish_reason is not None
    return RowNews(row.key, text, row.writer.result(row.decision) if is_over else None)
