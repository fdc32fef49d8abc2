"""Contenders and cases that need no model: what they answer is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from editing_core.evaluation.contender import Contender, Query, Reply
from editing_core.evaluation.probes import EditCase, EditProbe
from editing_core.types import EditRequest, ImageArray

BEFORE = "as before"


class Notebook(Contender):
    """Looks answers up by picture and prompt; says `as before` where nothing is written.

    Args:
        leaks: answer every question with the latest edit.
        refuses: targets that it does not take.
        fails_after: raise `InterruptedError` once so many batches were answered.
    """

    def __init__(
        self,
        name: str = "notebook",
        *,
        leaks: bool = False,
        refuses: Sequence[str] = (),
        fails_after: int | None = None,
    ) -> None:
        self.name = name
        self.leaks = leaks
        self.refuses = refuses
        self.left = fails_after
        self.batches = 0
        self.reset()

    def reset(self) -> None:
        self.pages: dict[tuple[bytes, str], str] = {}

    def edit(self, request: EditRequest) -> bool:
        if request.target in self.refuses:
            return False
        self.pages[request.image.tobytes(), request.prompt] = request.target
        return True

    def answer(self, queries: Sequence[Query]) -> list[Reply]:
        self.batches += 1
        if self.left is not None:
            if self.left == 0:
                raise InterruptedError("killed")
            self.left -= 1
        return [self._reply(query) for query in queries]

    def token_accuracy(self, queries: Sequence[Query], targets: Sequence[str]) -> list[float]:
        answers = [self._reply(query).text for query in queries]
        return [float(a == b) for a, b in zip(answers, targets, strict=True)]

    def diagnostics(self) -> dict[str, float]:
        return {"pages": float(len(self.pages))}

    def _reply(self, query: Query) -> Reply:
        if self.leaks and self.pages:
            return Reply(list(self.pages.values())[-1], stopped=True, fired=1, survivors=3)
        key = (b"" if query.image is None else query.image.tobytes(), query.prompt)
        found = self.pages.get(key)
        return Reply(found or BEFORE, stopped=True, fired=int(found is not None), survivors=1)


class PlainCases:
    """Cases with a reliability, a text generality and a text locality probe each."""

    def __init__(self, count: int, *, group_size: int | None = None) -> None:
        self._count = count
        self._group_size = group_size

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> EditCase:
        if not 0 <= index < self._count:
            raise IndexError(index)
        image: ImageArray = np.full((2, 2, 3), index, dtype=np.uint8)
        return EditCase(
            seed=index,
            image=image,
            prompt="What is it?",
            target=f"target {index}",
            question_kind="what",
            target_group="alternative",
            probes=(
                EditProbe("reliability", image, "What is it?"),
                EditProbe("text generality", image, "Which is it?"),
                EditProbe("text locality", None, "Who?"),
            ),
            group=None if self._group_size is None else index // self._group_size,
        )
