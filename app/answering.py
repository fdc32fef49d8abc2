"""Questions to the model, whichever door they came through: pinned, looked at, answered.

Lives on the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from app.engine import InferenceEngine, OnTokens
from app.feedback.answers import KeptAnswer, RecentAnswers
from app.firings import Firings
from app.history import History
from app.images import DecodedImage, ImageDecoder
from app.metrics import Metrics, Pace
from app.timing import Stopwatch
from app.tracing import Tracing
from app.ulid import new_ulid
from editing_core.experts.memory import Snapshot
from editing_core.generation import GenerationRow
from editing_core.types import Candidate, GenerationResult, Role, Sampling, TokenLogprob, Turn


@dataclass(frozen=True, slots=True)
class Message:
    """One turn as it came in: its words, and its pictures as request fields hold them."""

    role: Role
    text: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """By which edits an answer is given, and whether those that were considered are listed."""

    has_edits: bool = True
    at_version: int | None = None
    min_version: int | None = None
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation whose last message is the user's, to be answered once for each sampling.

    Edits go by the words of the last message and by the latest picture of all, as if it were asked
    alone; a single message with one picture is. `schema` is the JSON schema of the answer, as JSON.
    `id` is what the answer can be reported by.
    """

    messages: tuple[Message, ...]
    samplings: tuple[Sampling, ...]
    terms: Terms = Terms()
    schema: str | None = None
    id: str = field(default_factory=new_ulid)


@dataclass(frozen=True, slots=True)
class TextQuestion:
    """Texts that are continued as they stand, as tokens, once for each sampling.

    Without a picture, so no edit takes part. With `top_logprobs`, the texts' own tokens are judged.
    A sampling of no tokens continues nothing.
    """

    texts: tuple[tuple[int, ...], ...]
    samplings: tuple[Sampling, ...]
    terms: Terms = Terms()
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question: one result for each sampling, all routed alike.

    Of texts there are as many for each, in order, and `judged` are the log-probabilities of each
    text's tokens after the first.
    """

    results: tuple[GenerationResult, ...]
    version: int
    timings_ms: dict[str, float]
    id: str
    candidates: tuple[Candidate, ...] | None = None
    judged: tuple[tuple[TokenLogprob, ...], ...] = ()

    @property
    def applied(self) -> tuple[Candidate, ...]:
        return self.results[0].decision.applied if self.results else ()


class Answering:
    """Answers questions, each on one pinned snapshot."""

    def __init__(
        self,
        *,
        engine: InferenceEngine,
        decoder: ImageDecoder,
        history: History,
        metrics: Metrics,
        recent: RecentAnswers,
        firings: Firings,
        tracing: Tracing,
    ) -> None:
        self._tracing = tracing
        self._metrics = metrics
        self._firings = firings
        self._recent = recent
        self._engine = engine
        self._decoder = decoder
        self._history = history

    async def answer(self, question: Question, *, on_tokens: OnTokens | None = None) -> Answer:
        """`on_tokens(sampling, text)` is called on the device thread."""
        watch, terms = Stopwatch(), question.terms
        await self._check(terms)
        with self._engine.ticket(self._most_tokens(question)):
            samplings = await self._prepared(question.samplings, question.schema)
            fields = [field for message in question.messages for field in message.images]
            async with self._decoder.open_all(fields) as images:
                snapshot = await self._snapshot(terms)
                row = _row(question.messages, images, snapshot if terms.has_edits else None)
                rows = [replace(row, sampling=sampling) for sampling in samplings]
                with watch.lap("generate"):
                    results = await self._generate(rows, on_tokens)
                candidates = await self._explain(row, results[0]) if terms.explain else None
        answer = Answer(tuple(results), snapshot.version, watch.read(), question.id, candidates)
        self._recent.remember(_kept(question, answer))
        return answer

    async def continue_texts(
        self, question: TextQuestion, *, on_tokens: OnTokens | None = None
    ) -> Answer:
        """Texts one after another. `on_tokens(result, text)` is called on the device thread."""
        watch, terms = Stopwatch(), question.terms
        await self._check(terms)
        results: list[GenerationResult] = []
        judged: list[tuple[TokenLogprob, ...]] = []
        asked = sum(map(len, question.texts)) * len(question.samplings)
        answered = sum(each.max_new_tokens for each in question.samplings) * len(question.texts)
        with self._engine.ticket(asked + answered):
            samplings = await self._prepared(question.samplings, None)
            snapshot = await self._snapshot(terms)
            for ids in question.texts:
                if question.top_logprobs is not None:
                    found = await self._engine.text_logprobs(ids, top=question.top_logprobs)
                    judged.append(tuple(found))
                rows = [GenerationRow("", None, each, ids=ids) for each in samplings]
                with watch.lap("generate"):
                    results += await self._generate(rows, _from(len(results), on_tokens))
        candidates = () if terms.explain else None
        return Answer(
            tuple(results), snapshot.version, watch.read(), new_ulid(), candidates, tuple(judged)
        )

    def _most_tokens(self, question: Question) -> int:
        texts = [message.text for message in question.messages]
        pictures = sum(len(message.images) for message in question.messages)
        return sum(
            self._engine.facts.most_tokens(
                texts, pictures=pictures, max_new_tokens=each.max_new_tokens
            )
            for each in question.samplings
        )

    async def _generate(
        self, rows: Sequence[GenerationRow], on_tokens: OnTokens | None
    ) -> list[GenerationResult]:
        """One result for each row, counted and timed."""
        paces = [Pace() for _ in rows]

        def piece(row: int, text: str) -> None:
            paces[row].piece()
            if on_tokens is not None:
                on_tokens(row, text)

        results = await self._engine.generate(
            rows, on_tokens=piece, on_begin=lambda row: paces[row].enters()
        )
        for pace, result in zip(paces, results, strict=True):
            self._metrics.answered(
                pace,
                finish_reason=result.finish_reason,
                prompt_tokens=result.prompt_tokens,
                new_tokens=result.completion_tokens,
                candidates=len(result.decision.candidates),
                applied=len(result.decision.applied),
                cached_tokens=result.cached_tokens,
            )
            self._tracing.record("errata.answer", pace.laps(), _facts(result))
            self._firings.fired(each.edit_id for each in result.decision.applied)
        return results

    async def _check(self, terms: Terms) -> None:
        if terms.min_version is not None:
            await self._history.wait_for(terms.min_version)
        if terms.at_version is not None:
            self._history.require_version(terms.at_version, param="at_version")

    async def _prepared(
        self, samplings: Sequence[Sampling], schema: str | None
    ) -> Sequence[Sampling]:
        """With the grammar of `schema`. What takes a while is made beside the event loop."""
        words = self._engine.words
        if schema is not None:
            grammar = await asyncio.to_thread(lambda: words.grammar.compile(schema))
            return [replace(each, grammar=grammar) for each in samplings]
        if any(each.top_logprobs is not None for each in samplings):
            await asyncio.to_thread(lambda: words.grammar)  # names the tokens later on
        return samplings

    async def _snapshot(self, terms: Terms) -> Snapshot:
        if terms.at_version is None:
            return self._history.snapshot
        return await self._history.snapshot_at(terms.at_version)

    async def _explain(self, row: GenerationRow, result: GenerationResult) -> tuple[Candidate, ...]:
        """The router's candidates, then edits that would pass the image filter if active."""
        found = list(result.decision.candidates)
        if row.image is not None and row.snapshot is not None:
            key = (await self._engine.picture_key(row.image)).image
            tau = self._engine.facts.tau
            near = self._history.inactive_near(key, tau, row.snapshot)
            found += [Candidate(i, cosine, 0.0, 0.0, "inactive") for i, cosine in near]
        return tuple(found)


def _facts(result: GenerationResult) -> dict[str, str | int]:
    """What a trace says of an answer."""
    return {
        "gen_ai.usage.input_tokens": result.prompt_tokens,
        "gen_ai.usage.output_tokens": result.completion_tokens,
        "errata.finish_reason": result.finish_reason,
        "errata.routing.candidates": len(result.decision.candidates),
        "errata.experts_applied": len(result.decision.applied),
    }


def _kept(question: Question, answer: Answer) -> KeptAnswer:
    images = [field for message in question.messages for field in message.images]
    return KeptAnswer(
        id=answer.id,
        prompt=question.messages[-1].text,
        image=images[-1] if images else None,
        text=answer.results[0].text,
        version=answer.version,
        applied=tuple(each.edit_id for each in answer.applied),
    )


def _row(
    messages: Sequence[Message], images: Sequence[DecodedImage], snapshot: Snapshot | None
) -> GenerationRow:
    pixels = iter([image.pixels for image in images])
    turns = tuple(
        Turn(each.role, each.text, tuple(next(pixels) for _ in each.images)) for each in messages
    )
    latest = images[-1].pixels if images else None
    is_alone = len(turns) == 1 and len(images) <= 1
    return GenerationRow(turns[-1].text, latest, snapshot=snapshot, turns=() if is_alone else turns)


def _from(first: int, on_tokens: OnTokens | None) -> Callable[[int, str], None] | None:
    if on_tokens is None:
        return None
    return lambda row, text: on_tokens(first + row, text)
