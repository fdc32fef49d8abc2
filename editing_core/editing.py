"""Edits of a model in this process, one after another, as the service makes them.

    session = EditSession(EditableModel.load())
    outcome = session.edit(EditRequest(image, "What colour is the star?", "blue"))
    session.answers([(other_view, "Which colour has the star?")])

What a session holds is gone with it: history, rollback and storage are the service's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.errors import ArtifactCorrupt
from editing_core.experts.codec import decode_artifact, encode_artifact
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.identity import image_digest, slot_prompt
from editing_core.refinement import ANSWERS, MAX_STEPS
from editing_core.stories import Ask, Decide, Fetch, Neighbour, Refine, Screen, Step, Story, ask
from editing_core.types import EditRequest, GenerationResult, ImageArray
from editing_core.verification import Damage, Verification, verify

Verify = Literal["strict", "report", "off"]
Outcome = TypeVar("Outcome")

_TOKENS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class EditOutcome:
    """What became of one edit. `reason` is the service's error code of a refused one.

    `before` and `after` are its own prompt's answers, None where nobody asked (`verify="off"`).
    An accepted edit with `damaged` was reported (`verify="report"`), not verified.
    """

    accepted: bool
    edit_id: str
    before: str | None = None
    after: str | None = None
    refinement_steps: int = 0
    damaged: tuple[Damage, ...] = ()
    reason: str | None = None


class EditSession:
    """A model and the edits in force. Not thread-safe; `snapshot` may be read and kept by all."""

    def __init__(
        self,
        model: EditableModel,
        *,
        editor: str = "liveedit",
        verify: Verify = "strict",
        max_steps: int = MAX_STEPS,
        objective: str = ANSWERS,
    ) -> None:
        self.model = model
        self.editor = editor
        self.verify = verify
        self.max_steps = max_steps
        self.objective = objective
        self.snapshot: Snapshot = model.empty_snapshot()
        self._by_slot: dict[tuple[str, str], str] = {}
        self._requests: dict[str, EditRequest] = {}

    def edit(self, request: EditRequest, *, supersedes: Sequence[str] = ()) -> EditOutcome:
        """Make one edit; the newest of a picture (by its pixels) and prompt replaces the older.

        `supersedes` names further edits it replaces; those no longer active are passed over. A
        refused edit leaves `snapshot` as it was. Raises what `EditableModel.encode` raises.
        """
        slot = (image_digest(request.image), slot_prompt(request.prompt))
        named = [self._by_slot[slot], *supersedes] if slot in self._by_slot else supersedes
        retired = [i for i in dict.fromkeys(named) if i in self.snapshot.entries]
        data = encode_artifact(self.model.encode(request, editor=self.editor))
        edit_id = f"e{len(self._requests) + 1}"
        entry = MemoryEntry.of(edit_id, decode_artifact(data), request, image_digest=slot[0])
        outcome = EditOutcome(accepted=True, edit_id=edit_id)
        if self.verify != "off":
            found = self._verified(request, entry, retired)
            entry, outcome = found.entry, self._outcome(edit_id, found)
        if outcome.accepted:
            version = self.snapshot.version + 1
            self.snapshot = self.snapshot.evolve(version, activate=[entry], deactivate=retired)
            self._by_slot[slot] = edit_id
            self._requests[edit_id] = request
        return outcome

    def answers(
        self, rows: Sequence[tuple[ImageArray | None, str]], *, edits: bool = True
    ) -> list[GenerationResult]:
        """Free greedy answers to (image, prompt) rows, by the edits in force or the base model."""
        snapshot = self.snapshot if edits else None
        asked = [GenerationRow(prompt, image, snapshot=snapshot) for image, prompt in rows]
        return self._tell(ask(asked))

    def _verified(
        self, request: EditRequest, entry: MemoryEntry, retired: Sequence[str]
    ) -> Verification:
        return self._tell(
            verify(
                request,
                entry,
                base=self.snapshot,
                retired=retired,
                tau=self.model.router.tau,
                stock=self.model.stock_questions,
                max_steps=self.max_steps,
            )
        )

    def _outcome(self, edit_id: str, found: Verification) -> EditOutcome:
        is_refused = self.verify == "strict" and not found.verified
        return EditOutcome(
            accepted=not is_refused,
            edit_id=edit_id,
            before=found.before,
            after=found.after,
            refinement_steps=found.refinement_steps,
            damaged=found.damaged,
            reason=found.reason if is_refused else None,
        )

    def _tell(self, story: Story[Outcome]) -> Outcome:
        """Run a story in this thread."""
        reply: Any = None
        while True:
            try:
                step = story.send(reply)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            reply = self._do(step)

    def _do(self, step: Step) -> Any:
        match step:
            case Ask(rows):
                return self.model.generate(rows)
            case Decide(rows):
                return self.model.decide(rows, tokens_at_once=_TOKENS_AT_ONCE)
            case Screen(questions, edits):
                return self.model.may_mean(questions, edits)
            case Fetch(edit_ids):
                return [self._neighbour(edit_id) for edit_id in edit_ids]
            case Refine(edit_id, wanted, max_steps):
                try:
                    return self.model.refine(
                        edit_id, wanted, max_steps=max_steps, objective=self.objective
                    )
                except ArtifactCorrupt:  # outgrew float32: nothing came of it that can be stored
                    return None

    def _neighbour(self, edit_id: str) -> Neighbour:
        request = self._requests[edit_id]
        return Neighbour(edit_id, request.image, request.prompt, request.target)
