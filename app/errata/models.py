"""What the server answers, as frozen values.

A field that a newer server adds is kept and can be read by its name. `to_dict` gives back what
came in.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

EditStatus = Literal[
    "pending", "active", "superseded", "rolled_back", "stale", "quarantined", "failed", "cancelled"
]
Verify = Literal["strict", "report", "off"]
KeyScope = Literal["infer", "edit", "admin"]
Verdict = Literal["right", "wrong"]


class Model(BaseModel):
    """What all answers have in common."""

    # Built at its first use: importing the client costs little.
    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True, defer_build=True)

    def to_dict(self) -> dict[str, Any]:
        """The fields that the server sent, ready for JSON."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Damage(Model):
    """An answer that an edit changed and should not have: an edit's own, or a stock question's."""

    edit_id: str | None = None
    prompt: str | None = None
    before: str
    after: str


class Progress(Model):
    """How far a pending edit is. `total` is None where nobody knows it beforehand."""

    stage: str
    done: int
    total: int | None


class Warned(Model):
    """What is odd about an edit, and may be meant all the same."""

    code: str
    message: str


class Change(Model):
    edit_id: str
    from_: str | None = Field(alias="from")
    to: str


class Event(Model):
    """One version of the history. Each `digest` covers the one before it."""

    version: int
    type: str
    at: str
    actor: str
    request_id: str
    reason: str | None
    from_version: int | None
    changes: list[Change]
    num_changes: int | None = None
    reencoding: dict[str, Any] | None = None
    scopes: list[dict[str, Any]] | None = None
    record_digest: str | None
    previous_digest: str | None
    digest: str


class Fired(Model):
    """How often an edit took part in an answer, at least, and when it last did."""

    count: int
    last_at: str | None


class Edit(Model):
    """A correction. `version` is the one that it created, None while it is not committed.

    `progress` is there while it is pending, `error` once it failed. `history` comes with
    `get_edit` alone.
    """

    id: str
    version: int | None
    status: str
    editor: str
    prompt: str
    target: str
    image_digest: str
    before: str | None
    after: str | None
    verified: bool | None
    verified_version: int | None
    damaged: list[Damage]
    refinement_steps: int
    rephrases: list[str]
    not_for: list[str]
    supersedes: list[str]
    created_at: str
    created_by: str
    note: str | None
    tags: list[str]
    timings_ms: dict[str, float]
    progress: Progress | None = None
    error: dict[str, Any] | None = None
    warnings: list[Warned] = []
    history: list[Event] = []
    fired: Fired | None = None

    @property
    def is_pending(self) -> bool:
        return self.status == "pending"


class Made(Model):
    """One line of a batch: the edit, or what the server answered instead. `index` counts from 0."""

    index: int
    status: int
    edit: Edit | None = None
    error: dict[str, Any] | None = None
    idempotent_replayed: bool = False


class Switched(Model):
    """What a change of one edit came to. `version` is the newest; `changed` may be False."""

    version: int
    changed: bool
    edit: Edit


class Restored(Model):
    """What a return to an earlier version came to: ids."""

    version: int
    changed: bool
    rolled_back: list[str]
    reinstated: list[str]
    superseded: list[str]
    rescoped: list[str] = []


class Applied(Model):
    """An edit that took part: cosine of the image keys, the router's gate, the multiplier."""

    edit_id: str
    image_similarity: float
    text_similarity: float
    weight: float


class Candidate(Applied):
    """An edit whose picture is near, and what became of it."""

    outcome: str
    matched: str | None


class Usage(Model):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Answer(Model):
    """An answer of the model. `candidates` is None unless they were asked for."""

    id: str
    text: str
    finish_reason: str
    model: str
    version: int
    applied: list[Applied]
    candidates: list[Candidate] | None = None
    usage: Usage
    timings_ms: dict[str, float]


class Reached(Model):
    """A question, and whether an edit will answer it. `gate` is how sure the words are, 0 to 1."""

    question: str
    applies: bool
    gate: float
    excluded: bool
    matched: str


class Preview(Model):
    """Where an edit will apply. `asked` are your own questions, in the order of the request."""

    prompt: str
    rho: float
    asked: list[Reached]
    will: list[Reached]
    will_not: list[Reached]


class Layer(Model):
    layer: int
    attention: float
    mlp: float


class Attribution(Model):
    """Where an answer comes from. `picture` is a PNG as a data URI."""

    answer: str
    token: int
    token_text: str
    layers: list[Layer]
    recommended_layer: int
    grid: tuple[int, int]
    influence: list[list[float]]
    influence_layers: list[int]
    picture: str


class Reported(Model):
    id: str
    status: str


class TakenIn(Reported):
    """`known`: that report was here already, and nothing was changed."""

    known: bool


class Feedback(Model):
    """A report of an answer, with what it takes to correct it.

    One from elsewhere has `source` and `source_id` in place of `answer_id` and `version`.
    """

    id: str
    status: str
    answer_id: str | None
    verdict: str
    correction: str | None
    comment: str | None
    prompt: str
    answer: str
    image_digest: str | None
    version: int | None
    applied: list[str]
    created_at: str
    created_by: str
    closed_by: str | None
    edit_id: str | None
    reason: str | None
    closed_at: str | None
    closed_actor: str | None
    source: str | None = None
    source_id: str | None = None


class Key(Model):
    """An API key, without its token."""

    id: str
    label: str
    scope: str
    requests_per_minute: int | None
    edits_per_day: int | None
    created_at: str
    created_by: str
    revoked_at: str | None
    revoked_by: str | None


class NewKey(Key):
    """`token` is what callers send; the server never shows it again."""

    token: str


class Health(Model):
    """Whether the server can serve. `reasons` say why not; `version` is there when it can."""

    status: str
    version: int | None = None
    reasons: list[str] = []

    @property
    def is_ready(self) -> bool:
        return self.status == "ready"


class Load(Model):
    """How busy the server is."""

    waiting: int
    limit: int
    wait_s: float
    not_finite: int


class Backbone(Model):
    name: str
    fingerprint: str
    device: str
    dtype: str
    quantization: str


class Router(Model):
    fingerprint: str
    tau: float
    rho: float
    false_fire_rate: float | None
    image_key_model: str


class QuestionEncoder(Model):
    fingerprint: str
    prefer: str
    rho: float


class Eyes(Model):
    fingerprint: str


class Editor(Model):
    fingerprint: str
    default: bool


class Webhook(Model):
    """How far the webhook's receiver has been told. `behind`: messages that wait, at least.

    `failing` says why the last attempt came to nothing.
    """

    host: str
    version: int
    behind: int
    delivered_at: str | None
    failing: str | None


class Versions(Model):
    """What is running: the newest version, how many edits, and the weights that serve them."""

    version: int
    active_edits: int
    stale_edits: int
    backbone: Backbone
    router: Router
    question_encoder: QuestionEncoder | None
    eyes: Eyes | None
    editors: dict[str, Editor]
    webhook: Webhook | None = None
