"""Questions to the model, and its answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.answering import Answer, Message, Question, Terms
from app.schemas.base import INT64, Prompt, Request, Text
from editing_core.types import Candidate, GenerationResult, Outcome, Sampling

Stop = Annotated[Text, Field(min_length=1)]
Stops = Annotated[list[Stop], Field(max_length=4)]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class GenerateRequest(Request):
    """One user message: the picture, if any, then the prompt."""

    prompt: Prompt
    image: str | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=1024)] = 80
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=-INT64 - 1, le=INT64)] | None = None
    stop: Annotated[Stops, BeforeValidator(_as_list, json_schema_input_type=Stop | Stops)] = Field(
        []
    )
    stream: bool = False
    edits: Literal["on", "off"] = "on"
    at_version: Annotated[int, Field(ge=0, le=INT64)] | None = None
    min_version: Annotated[int, Field(ge=0, le=INT64)] | None = None
    explain: bool = False

    @property
    def question(self) -> Question:
        sampling = Sampling(
            self.max_new_tokens, self.temperature, self.top_p, self.seed, tuple(self.stop)
        )
        images = () if self.image is None else (self.image,)
        return Question(
            (Message("user", self.prompt, images),),
            (sampling,),
            Terms(self.edits == "on", self.at_version, self.min_version, self.explain),
        )


class AppliedView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    edit_id: str
    image_similarity: float
    text_similarity: float
    weight: float

    @classmethod
    def of(cls, candidate: Candidate) -> Self:
        return cls.model_validate(candidate)


class CandidateView(AppliedView):
    outcome: Outcome
    matched: str | None


def candidate_views(answer: Answer) -> list[CandidateView] | None:
    """None unless they were asked for."""
    if answer.candidates is None:
        return None
    return [CandidateView.of(each) for each in answer.candidates]


class UsageView(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, result: GenerationResult) -> UsageView:
        prompt, answer = result.prompt_tokens, result.completion_tokens
        return cls(prompt_tokens=prompt, completion_tokens=answer, total_tokens=prompt + answer)


class GenerateTail(BaseModel):
    """All of an answer but its text: also the last object of a stream."""

    id: str
    finish_reason: Literal["stop", "length"]
    model: str
    version: int
    applied: list[AppliedView]
    candidates: list[CandidateView] | None = None
    usage: UsageView
    timings_ms: dict[str, float]

    def wire(self) -> dict[str, Any]:
        """Without `candidates` unless they were asked for."""
        return self.model_dump(exclude={"candidates"} if self.candidates is None else None)


class GenerateView(GenerateTail):
    text: str

    @classmethod
    def of(cls, answer: Answer, *, model: str) -> GenerateView:
        (result,) = answer.results
        return cls(
            id=answer.id,
            text=result.text,
            finish_reason=result.finish_reason,
            model=model,
            version=answer.version,
            applied=[AppliedView.of(each) for each in answer.applied],
            candidates=candidate_views(answer),
            usage=UsageView.of(result),
            timings_ms=answer.timings_ms,
        )

    def noted(self) -> dict[str, Any]:
        """What the log says of it: never the text."""
        return {
            "version": self.version,
            "edits": [applied.edit_id for applied in self.applied],
            "tokens": self.usage.total_tokens,
        }
