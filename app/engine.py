"""The service's side of the device: who may come in, what is sent there, and what comes back.

A request takes a *ticket* before it does anything costly; tickets are what the queue is bounded
by. (An edit that outlives its request goes on without one; `app/edits/queue.py` counts those.)
Under one ticket it sends *messages*, frozen values that `app/device` answers with others. Nothing
else touches the model: what is to be known of it is `facts`. Whether the device is a thread of this
process or another process, the engine does not know.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from app.admission import Admission, OverloadStatus
from app.device.facts import ModelFacts
from app.device.messages import (
    Aside,
    Attribute,
    Begun,
    Cancel,
    Decide,
    Done,
    Encode,
    Failed,
    Generate,
    Judge,
    Look,
    Message,
    Progress,
    Publish,
    Refine,
    Reply,
    Request,
    Rescope,
    Screen,
    Survey,
    Text,
    Tokenise,
    Validate,
)
from app.device.reach import Reach
from app.errors import Draining, ServiceError
from app.waiting import Waits
from app.words import ModelWords
from editing_core.errors import NotFinite
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.generation import GenerationRow
from editing_core.refinement import ANSWERS, Refinement, Wanted
from editing_core.types import (
    EditArtifact,
    EditRequest,
    GenerationResult,
    ImageArray,
    OnProgress,
    PictureKey,
    RoutingDecision,
    TokenLogprob,
)

if TYPE_CHECKING:
    from editing_core.attribution.attribute import Attribution

logger = logging.getLogger(__name__)

OnTokens = Callable[[int, str], None]
OnBegin = Callable[[int], None]


class Device(Protocol):
    """What runs the model, here or elsewhere. It answers messages by replies, on its threads."""

    def start(self) -> None: ...

    def stop(self) -> None:
        """Finish what it was sent, then end. Blocks; safe to call twice."""
        ...

    @property
    def is_alive(self) -> bool:
        """False once it has ended for good."""
        ...

    @property
    def refusal(self) -> ServiceError | None:
        """Why it can be asked nothing now; None where it can."""
        ...

    def post(self, message: Message) -> None:
        """Hand a message over, from any thread. Never blocks."""
        ...


@dataclass(slots=True, eq=False)
class _Pending:
    """A request that waits for its last reply, and who is told of those before it."""

    on_tokens: OnTokens | None
    on_progress: OnProgress | None
    waits: bool
    """For its turn on the device."""
    on_begin: OnBegin | None
    future: Future[Any] = field(default_factory=Future)


class InferenceEngine:
    """The one door to the device. `start` it before use, `stop` it after.

    The async methods belong on the event loop's thread and never block it. Cancelling a task that
    awaits one of them stops the device before its next pass. Each raises `EngineRestarting` while
    the device cannot be asked, or when it ends before it has answered.
    """

    def __init__(
        self,
        facts: ModelFacts,
        device: Callable[[Callable[[Reply], None]], Device],
        *,
        admission: Admission,
        refine_objective: str = ANSWERS,
    ) -> None:
        self.facts = facts
        self.waits = Waits()
        """Once they are over, whatever waits for the device gets `Draining`."""
        self.not_finite = 0
        """How many requests the model gave no numbers for."""
        self.device = device(self._receive)
        self._admission = admission
        self._refine_objective = refine_objective
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}

    @property
    def words(self) -> ModelWords:
        return self.facts.words

    def start(self) -> None:
        self.device.start()

    def stop(self) -> None:
        """Finish what is queued, then end the device. Blocks; safe to call twice."""
        self.device.stop()

    @property
    def is_alive(self) -> bool:
        return self.device.is_alive

    @property
    def queued(self) -> int:
        """Requests that wait for the device; those that it has begun are not among them."""
        return sum(each.waits for each in list(self._pending.values()))

    @property
    def refusal(self) -> ServiceError | None:
        """Why the model can be asked nothing now; None where it can."""
        return self.device.refusal

    def overload_status(self) -> OverloadStatus:
        return self._admission.status()

    def ticket(self, tokens: int = 0) -> AbstractContextManager[None]:
        """A place in the queue for as long as the block runs.

        Raises `QueueFull`, and `EngineRestarting` before anything is spent on the request.
        """
        self._require_device()
        return self._admission.ticket(tokens)

    def _require_device(self) -> None:
        if (refusal := self.device.refusal) is not None:
            raise refusal

    def publish(self, snapshot: Snapshot) -> None:
        """Let the device know the newest snapshot, before a question comes with it."""
        self.device.post(Publish(snapshot))

    # --- what it can be asked ---------------------------------------------------------------

    async def validate(self, request: EditRequest, *, editor: str) -> None:
        """Refuse what `encode` would refuse without running the model, whatever the device does.

        Raises the library's `RequestError`s.
        """
        await self._send(Validate(next(self._ids), request, editor))

    async def encode(
        self, request: EditRequest, *, editor: str, on_progress: OnProgress | None = None
    ) -> EditArtifact:
        """Validate and encode one edit.

        Between its gradient steps the device does what waits meanwhile, so that an editor which
        takes minutes keeps nobody waiting longer than one of them. `on_progress(done, total, loss)`
        is called there, on the device thread. Raises the library's `RequestError`s.
        """
        message = Encode(next(self._ids), request, editor)
        made: EditArtifact = await self._send(message, on_progress=on_progress)
        return made

    async def rescope(self, artifact: EditArtifact, request: EditRequest) -> EditArtifact:
        """Validate, and make new keys for one edit. Raises the library's `RequestError`s."""
        made: EditArtifact = await self._send(Rescope(next(self._ids), artifact, request))
        return made

    async def picture_key(self, image: ImageArray) -> PictureKey:
        """What a picture is known by."""
        key: PictureKey = await self._send(Look(next(self._ids), image))
        return key

    async def generate(
        self,
        rows: Sequence[GenerationRow],
        *,
        on_tokens: OnTokens | None = None,
        on_begin: OnBegin | None = None,
        for_edit: bool = False,
    ) -> list[GenerationResult]:
        """Answer every row.

        On the device thread, `on_begin(row)` is called when one is taken up, `on_tokens(row, text)`
        as its text comes. Rows `for_edit` come behind those of people.
        """
        message = Generate(next(self._ids), tuple(rows), for_edit)
        results: list[GenerationResult] = await self._send(
            message, on_tokens=on_tokens, on_begin=on_begin
        )
        return results

    async def decide(self, rows: Sequence[GenerationRow]) -> list[RoutingDecision]:
        """Who would act on each row, without an answer; behind what people ask."""
        decisions: list[RoutingDecision] = await self._send(Decide(next(self._ids), tuple(rows)))
        return decisions

    async def may_mean(self, questions: Sequence[str], edits: Sequence[MemoryEntry]) -> list[bool]:
        """Whether one of the edits may act at each question, by its text alone."""
        message = Screen.of(next(self._ids), questions, edits)
        may: list[bool] = await self._send(message)
        return may

    async def text_ids(self, text: str) -> tuple[int, ...]:
        """Tokens of a text, whatever the device does. Raises `ContextTooLong`."""
        ids: tuple[int, ...] = await self._send(Tokenise(next(self._ids), text))
        return ids

    async def reach(
        self,
        wordings: Sequence[str],
        not_for: Sequence[str],
        *,
        questions: Sequence[str],
        limit: int,
    ) -> Reach:
        """Where an edit with these wordings will apply, whatever the device does meanwhile."""
        found: Reach = await self._send(
            Survey(next(self._ids), tuple(wordings), tuple(not_for), tuple(questions), limit)
        )
        return found

    async def text_logprobs(self, ids: Sequence[int], *, top: int) -> list[TokenLogprob]:
        """The base model's log-probabilities of a text. Raises the library's `RequestError`s."""
        judged: list[TokenLogprob] = await self._send(Judge(next(self._ids), tuple(ids), top))
        return judged

    async def attribute(self, image: ImageArray, prompt: str, *, token: int) -> Attribution:
        """Attribute one token of the base model's answer."""
        found: Attribution = await self._send(Attribute(next(self._ids), image, prompt, token))
        return found

    async def refine(self, edit_id: str, wanted: Sequence[Wanted], *, max_steps: int) -> Refinement:
        """Refine one expert, towards what the server is set to aim at."""
        message = Refine(next(self._ids), edit_id, tuple(wanted), max_steps, self._refine_objective)
        refined: Refinement = await self._send(message)
        return refined

    # --- messages ---------------------------------------------------------------------------

    async def _send(
        self,
        message: Request,
        *,
        on_tokens: OnTokens | None = None,
        on_progress: OnProgress | None = None,
        on_begin: OnBegin | None = None,
    ) -> Any:
        """The result of one request. Whoever stops waiting for it calls it off."""
        self._require_device()
        pending = _Pending(
            on_tokens, on_progress, waits=not isinstance(message, Aside), on_begin=on_begin
        )
        # So that whoever gives up waiting leaves it to the device to end it.
        pending.future.set_running_or_notify_cancel()
        self._pending[message.id] = pending
        self.device.post(message)
        try:
            async with self.waits.wait():
                return await asyncio.wrap_future(pending.future)
        except TimeoutError as error:
            if not self.waits.is_over:  # the work's own
                raise
            raise Draining("This server is shutting down.", retry_after_s=5) from error
        except NotFinite as error:
            self.not_finite += 1
            logger.error("%s; %d times since the start", error.message, self.not_finite)
            raise
        finally:
            if self._pending.pop(message.id, None) is not None:
                self.device.post(Cancel(message.id))

    def _receive(self, reply: Reply) -> None:
        """On a thread of the device, which must not suffer from what is done here."""
        pending = self._pending.get(reply.id)
        if pending is None:  # nobody waits for it any more
            return
        try:
            if isinstance(reply, Text):
                if pending.on_tokens is not None:
                    pending.on_tokens(reply.row, reply.text)
                return
            if isinstance(reply, Begun):
                pending.waits = False
                if pending.on_begin is not None:
                    pending.on_begin(reply.row)
                return
            if isinstance(reply, Progress):
                if pending.on_progress is not None:
                    pending.on_progress(reply.done, reply.total, reply.loss)
                return
        except Exception as error:  # noqa: BLE001 - its own listener's, and so its own end
            reply = Failed(reply.id, error)
            self.device.post(Cancel(reply.id))
        self._pending.pop(reply.id, None)
        if isinstance(reply, Done):
            pending.future.set_result(reply.result)
        elif isinstance(reply, Failed):
            pending.future.set_exception(reply.error)
