"""What goes over the wire. Requests are strict: no unknown field, no coercion between types."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SkipValidation

from app.errors import ServiceError
from app.store.job_log import EditJob
from app.store.records import EditRecord, Event
from editing_core.attribution.attribute import Attribution
from editing_core.types import Candidate, GenerationResult, Sampling

EditStatus = Literal[
    "pending",
    "active",
    "superseded",
    "rolled_back",
    "stale",
    "quarantined",
    "failed",
    "cancelled",
]
Verify = Literal["strict", "report", "off"]

INT64 = 2**63 - 1


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _as_target(text: str) -> str:
    return _not_blank(unicodedata.normalize("NFC", text).strip())


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _unique(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


Prompt = Annotated[str, AfterValidator(_not_blank)]
Target = Annotated[str, AfterValidator(_as_target)]
Reason = Annotated[str, Field(max_length=2000)]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class EditCreate(Request):
    """A correction: on this picture, to this prompt, the model shall answer `target`."""

    image: str = Field(description="A data URI, or bare base64, of a PNG, JPEG, WebP or GIF.")
    prompt: Prompt
    target: Target
    rephrases: Annotated[list[Prompt], Field(max_length=32)] = []
    editor: str | None = None
    verify: Verify = "strict"
    supersedes: Annotated[list[str], Field(max_length=100), AfterValidator(_unique)] = []
    note: Annotated[str, Field(max_length=2000)] | None = None
    tags: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=100)]],
        Field(max_length=32),
        AfterValidator(_unique),
    ] = []


class BatchItem(EditCreate):
    """An edit of a batch, with what would be its `Idempotency-Key` header."""

    idempotency_key: str | None = None


class BatchCreate(Request):
    """Corrections made one after another. Each is read on its own: one mistake spoils one edit."""

    edits: Annotated[list[SkipValidation[BatchItem]], Field(min_length=1)]


class GenerateRequest(Request):
    """One user message: the picture, if any, then the prompt."""

    prompt: Prompt
    image: str | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=1024)] = 80
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=-INT64 - 1, le=INT64)] | None = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(max_length=4),
        BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
    ] = []
    stream: bool = False
    edits: Literal["on", "off"] = "on"
    at_version: Annotated[int, Field(ge=0, le=INT64)] | None = None
    min_version: Annotated[int, Field(ge=0, le=INT64)] | None = None
    explain: bool = False

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            self.max_new_tokens, self.temperature, self.top_p, self.seed, tuple(self.stop)
        )


class AttributionRequest(Request):
    """A question whose answer is to be explained, or rather one token of it."""

    image: str = Field(description="A data URI, or bare base64, of a PNG, JPEG, WebP or GIF.")
    prompt: Prompt
    token: Annotated[int, Field(ge=0, le=INT64)] = 0


class RollbackRequest(Request):
    reason: Reason | None = None


class ReinstateRequest(Request):
    reason: Reason | None = None
    force: bool = False


class RestoreRequest(Request):
    to_version: Annotated[int, Field(ge=0, le=INT64)]
    reason: Reason | None = None


class Query(BaseModel):
    """Query strings: texts that are converted, but no unknown name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EditsQuery(Query):
    status: EditStatus | Literal["all"] = "all"
    q: str | None = None
    tag: str | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 20
    after: str | None = None


class EventsQuery(Query):
    after: Annotated[int, Field(ge=0, le=INT64)] = 0
    limit: Annotated[int, Field(ge=1, le=200)] = 100


class NoQuery(Query):
    pass


# --- answers ---------------------------------------------------------------------------------


class ErrorDetail(BaseModel):
    model_config = ConfigDict(extra="allow")

    message: str
    type: str
    param: str | None
    code: str
    hint: str
    retryable: bool
    request_id: str

    @classmethod
    def of(cls, error: ServiceError, request_id: str) -> ErrorDetail:
        return cls(
            message=error.message,
            type=error.kind,
            param=error.param,
            code=error.code,
            hint=error.hint,
            retryable=error.retryable,
            request_id=request_id,
            **error.details,
        )


class ErrorBody(BaseModel):
    """The one shape of every error."""

    error: ErrorDetail


class ChangeView(BaseModel):
    edit_id: str
    from_: EditStatus | None = Field(alias="from")
    to: EditStatus


class MadeByView(BaseModel):
    """Identity of the weights that made an edit's artifact."""

    editor: str
    editor_fingerprint: str
    backbone_fingerprint: str
    router_fingerprint: str


class ReencodingView(BaseModel):
    """What a `reencoded` event brought: by which weights, and how the edit was tried."""

    edit_id: str
    artifact_digest: str
    from_: MadeByView = Field(alias="from")
    to: MadeByView
    before: str | None
    after: str | None
    verified: bool | None
    verified_version: int | None
    damaged: list[dict[str, str]]
    refinement_steps: int


class EventView(BaseModel):
    version: int
    type: Literal["edit_created", "rolled_back", "reinstated", "restored", "imported", "reencoded"]
    at: str
    actor: str
    request_id: str
    reason: str | None
    from_version: int | None
    changes: list[ChangeView]
    reencoding: ReencodingView | None = Field(default=None, exclude_if=lambda found: found is None)
    record_digest: str | None
    previous_digest: str | None
    digest: str

    @classmethod
    def of(cls, event: Event) -> EventView:
        return cls.model_validate(event.wire() | {"digest": event.digest})


class ProgressView(BaseModel):
    """How far a pending edit is. `total` is null where nobody knows it beforehand."""

    model_config = ConfigDict(frozen=True)

    stage: Literal["queue", "fit", "verify"]
    done: int
    total: int | None


def _is_none(value: object) -> bool:
    return value is None


class EditView(BaseModel):
    """`progress` is there while an edit is pending, `error` once it failed."""

    id: str
    version: int | None
    status: EditStatus
    editor: str
    prompt: str
    target: str
    image_digest: str
    before: str | None
    after: str | None
    verified: bool | None
    verified_version: int | None
    damaged: list[dict[str, str]]
    refinement_steps: int
    rephrases: list[str]
    supersedes: list[str]
    created_at: str
    created_by: str
    note: str | None
    tags: list[str]
    timings_ms: dict[str, float]
    progress: ProgressView | None = Field(None, exclude_if=_is_none)
    error: ErrorDetail | None = Field(None, exclude_if=_is_none)

    @classmethod
    def of(cls, record: EditRecord, status: EditStatus) -> EditView:
        fields = {name: getattr(record, name) for name in EditRecord.__slots__}
        return cls(status=status, **fields)

    @classmethod
    def of_job(cls, job: EditJob, progress: ProgressView | None) -> EditView:
        """An edit that is not committed. `progress` is None unless it is under way."""
        asked = json.loads(job.request)
        return cls(
            id=job.id,
            version=None,
            status=job.state,
            editor=job.editor,
            prompt=job.prompt,
            target=job.target,
            image_digest=job.image_digest,
            before=None,
            after=None,
            verified=None,
            verified_version=None,
            damaged=[],
            refinement_steps=0,
            rephrases=asked["rephrases"],
            supersedes=asked["supersedes"],
            created_at=job.created_at,
            created_by=job.created_by,
            note=asked["note"],
            tags=list(job.tags),
            timings_ms={},
            progress=progress,
            error=None if job.error is None else json.loads(job.error),
        )


class EditWithHistory(EditView):
    history: list[EventView]


class EditList(BaseModel):
    object: Literal["list"] = "list"
    data: list[EditView]
    has_more: bool
    last_id: str | None


class EventList(BaseModel):
    object: Literal["list"] = "list"
    data: list[EventView]
    has_more: bool
    last_version: int


class AppliedView(BaseModel):
    edit_id: str
    image_similarity: float
    text_similarity: float
    weight: float


class CandidateView(AppliedView):
    outcome: Literal["applied", "below_sentinel", "below_text_gate", "inactive"]


class UsageView(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


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

    def noted(self) -> dict[str, Any]:
        """What the log says of it: never the text."""
        return {
            "version": self.version,
            "edits": [applied.edit_id for applied in self.applied],
            "tokens": self.usage.total_tokens,
        }


class LayerView(BaseModel):
    layer: int
    attention: float
    mlp: float


class AttributionView(BaseModel):
    """`influence` has a line for each row of patches; `picture` is a PNG as a data URI."""

    answer: str
    token: int
    token_text: str
    layers: list[LayerView]
    recommended_layer: int
    grid: tuple[int, int]
    influence: list[list[float]]
    influence_layers: list[int]
    picture: str

    @classmethod
    def of(cls, found: Attribution, *, picture: str) -> AttributionView:
        return cls(
            answer=found.answer,
            token=found.token,
            token_text=found.token_text,
            layers=[
                LayerView(layer=block.layer, attention=block.attention, mlp=block.mlp)
                for block in found.layers
            ],
            recommended_layer=found.recommended_layer,
            grid=found.grid,
            influence=found.influence.tolist(),
            influence_layers=list(found.influence_layers),
            picture=picture,
        )


class EditChanged(BaseModel):
    version: int
    changed: bool
    edit: EditView


class Restored(BaseModel):
    version: int
    changed: bool
    rolled_back: list[str]
    reinstated: list[str]
    superseded: list[str]


class BackboneView(BaseModel):
    name: str
    fingerprint: str
    device: str
    dtype: str
    quantization: str


class RouterView(BaseModel):
    fingerprint: str
    tau: float
    rho: float
    false_fire_rate: float | None
    image_key_model: str


class EditorView(BaseModel):
    fingerprint: str
    default: bool


class Versions(BaseModel):
    version: int
    active_edits: int
    stale_edits: int
    backbone: BackboneView
    router: RouterView
    editors: dict[str, EditorView]


def usage_of(result: GenerationResult) -> UsageView:
    return UsageView(
        prompt_tokens=result.prompt_tokens,
        completion_tokens=result.completion_tokens,
        total_tokens=result.prompt_tokens + result.completion_tokens,
    )


def applied_of(candidates: Iterable[Candidate]) -> list[AppliedView]:
    return [
        AppliedView(
            edit_id=c.edit_id,
            image_similarity=c.image_similarity,
            text_similarity=c.text_similarity,
            weight=c.weight,
        )
        for c in candidates
    ]


def candidates_of(candidates: Iterable[Candidate]) -> list[CandidateView]:
    return [
        CandidateView(
            edit_id=c.edit_id,
            image_similarity=c.image_similarity,
            text_similarity=c.text_similarity,
            weight=c.weight,
            outcome=c.outcome,
        )
        for c in candidates
    ]
