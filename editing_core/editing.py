"""Edits of a model in this process, one after another, as the service makes them.

    session = EditSession(EditableModel.load())
    outcome = session.edit(EditRequest(image, "What colour is the star?", "blue"))
    session.answers([(other_view, "Which colour has the star?")])

What a session holds is gone with it: history, rollback and storage are the service's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.experts.codec import decode_artifact, encode_artifact
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.identity import image_digest, slot_prompt
from editing_core.types import EditRequest, GenerationResult, ImageArray, Sampling

Verify = Literal["strict", "report", "off"]

_ROWS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class EditOutcome:
    """What became of one edit. `reason` is the service's error code of a refused one.

    `before` and `after` are its own prompt's answers, None where nobody asked (`verify="off"`).
    """

    accepted: bool
    edit_id: str
    before: str | None = None
    after: str | None = None
    refinement_steps: int = 0
    damaged: tuple[str, ...] = ()
    reason: str | None = None


class EditSession:
    """A model and the edits in force. Not thread-safe; `snapshot` may be read and kept by all."""

    def __init__(
        self, model: EditableModel, *, editor: str = "liveedit", verify: Verify = "strict"
    ) -> None:
        self.model = model
        self.editor = editor
        self.verify = verify
        self.snapshot: Snapshot = model.empty_snapshot()
        self._by_slot: dict[tuple[str, str], str] = {}
        self._made = 0

    def edit(self, request: EditRequest) -> EditOutcome:
        """Make one edit; the newest of a picture (by its pixels) and prompt replaces the older.

        A refused edit leaves `snapshot` as it was. Raises what `EditableModel.encode` raises.
        """
        slot = (image_digest(request.image), slot_prompt(request.prompt))
        data = encode_artifact(self.model.encode(request, editor=self.editor))
        entry = MemoryEntry(f"e{self._made + 1}", decode_artifact(data), slot[0], request.prompt)
        retired = [self._by_slot[slot]] if slot in self._by_slot else []
        self.snapshot = self.snapshot.evolve(
            self.snapshot.version + 1, activate=[entry], deactivate=retired
        )
        self._by_slot[slot] = entry.edit_id
        self._made += 1
        return EditOutcome(accepted=True, edit_id=entry.edit_id)

    def answers(
        self, rows: Sequence[tuple[ImageArray | None, str]], *, edits: bool = True
    ) -> list[GenerationResult]:
        """Free greedy answers to (image, prompt) rows, by the edits in force or the base model."""
        snapshot = self.snapshot if edits else None
        asked = [GenerationRow(prompt, image, Sampling(), snapshot) for image, prompt in rows]
        return [
            result
            for start in range(0, len(asked), _ROWS_AT_ONCE)
            for result in self.model.generate(asked[start : start + _ROWS_AT_ONCE])
        ]
