"""Edits: asked for one by one or many at once, and as they are shown."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import asdict
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SkipValidation, WithJsonSchema

from app.edits.catalogue import Search
from app.edits.edit import Answer, Correction, Edit, Order, Verify
from app.edits.oddities import warnings_of
from app.edits.wordings import MOST
from app.schemas.base import Prompt, Query, Request, Text, not_blank
from app.schemas.errors import ErrorDetail
from app.schemas.events import EventView
from app.store.firing_log import Firing
from app.store.ledger import EditStatus
from editing_core.identity import nfc

_BEYOND_ANY_TARGET = 100_000


def _as_target(text: str) -> str:
    if len(text) > _BEYOND_ANY_TARGET:  # the model will say so; nothing else is spent on it
        return text
    return not_blank(nfc(text).strip())


def _unique(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


Target = Annotated[
    Text, AfterValidator(_as_target), WithJsonSchema({"type": "string", "pattern": r"\S"})
]
Tag = Annotated[Text, Field(min_length=1, max_length=100), AfterValidator(nfc)]
Wordings = Annotated[list[Prompt], Field(max_length=MOST)]


class EditCreate(Request):
    """A correction: on this picture, to this prompt, the model shall answer `target`."""

    image: str = Field(description="A data URI, or bare base64, of a PNG, JPEG, WebP or GIF.")
    prompt: Prompt
    target: Target
    rephrases: Wordings = Field([])
    not_for: Wordings = Field([])
    editor: Annotated[str, Field(min_length=1)] | None = None
    verify: Verify = "strict"
    supersedes: Annotated[list[str], Field(max_length=100), AfterValidator(_unique)] = Field([])
    note: Annotated[Text, Field(max_length=2000)] | None = None
    tags: Annotated[list[Tag], Field(max_length=32), AfterValidator(_unique)] = Field([])

    def order(self) -> Order:
        """It, less the picture, as the service knows it."""
        return Order(
            prompt=self.prompt,
            target=self.target,
            rephrases=tuple(self.rephrases),
            not_for=tuple(self.not_for),
            editor=self.editor,
            verify=self.verify,
            supersedes=tuple(self.supersedes),
            note=self.note,
            tags=tuple(self.tags),
        )


class BatchItem(EditCreate):
    """An edit of a batch, with what would be its `Idempotency-Key` header."""

    idempotency_key: str | None = None


class BatchCreate(Request):
    """Corrections made one after another. Each is read on its own: one mistake spoils one edit."""

    edits: Annotated[list[SkipValidation[BatchItem]], Field(min_length=1)]


class EditsQuery(Query):
    status: EditStatus | Literal["all"] = "all"
    q: Text | None = None
    tag: Annotated[Text, AfterValidator(nfc)] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 20
    after: str | None = None

    def search(self) -> Search:
        return Search(self.status, self.q, self.tag, self.limit, self.after)


class ProgressView(BaseModel):
    """How far a pending edit is. `total` is null where nobody knows it beforehand."""

    model_config = ConfigDict(frozen=True)

    stage: Literal["queue", "fit", "verify"]
    done: int
    total: int | None


class WarningView(BaseModel):
    """What is odd about an edit, and may be meant all the same."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str


def _is_none(value: object) -> bool:
    return value is None


def _is_empty(value: Sized) -> bool:
    return len(value) == 0


class EditView(BaseModel):
    """`progress` is there while an edit is pending, `error` once it failed, `warnings` if any."""

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
    not_for: list[str]
    supersedes: list[str]
    created_at: str
    created_by: str
    note: str | None
    tags: list[str]
    timings_ms: dict[str, float]
    progress: ProgressView | None = Field(None, exclude_if=_is_none)
    error: ErrorDetail | None = Field(None, exclude_if=_is_none)
    warnings: list[WarningView] = Field([], exclude_if=_is_empty)

    @classmethod
    def of(cls, edit: Edit) -> EditView:
        """The edit as it is shown."""
        named = {name: getattr(edit.wanted, name) for name in Correction.__slots__}
        return cls(
            id=edit.id,
            version=edit.version,
            status=edit.status,
            editor=edit.editor,
            image_digest=edit.image_digest,
            created_at=edit.created_at,
            created_by=edit.created_by,
            timings_ms=dict(edit.timings_ms),
            progress=None if edit.progress is None else ProgressView(**asdict(edit.progress)),
            error=None if edit.error is None else ErrorDetail(**edit.error),
            warnings=[WarningView(**asdict(each)) for each in warnings_of(edit.wanted)],
            **named,
            **edit.found.fields(),
        )


def body_of_answer(answer: Answer) -> str:
    """JSON, byte for byte the same for the same answer."""
    return answer.body or EditView.of(answer.edit).model_dump_json(exclude=set(answer.unknown))


class FiredView(BaseModel):
    """How often an edit took part in an answer, at least, and when last."""

    count: int = 0
    last_at: str | None = None

    @classmethod
    def of(cls, firing: Firing | None) -> FiredView:
        return cls() if firing is None else cls(count=firing.count, last_at=firing.last_at)


class ListedEdit(EditView):
    """An edit, and how often it is of use."""

    fired: FiredView

    @classmethod
    def listed(cls, edit: Edit, firing: Firing | None) -> Self:
        return cls(**EditView.of(edit).model_dump(), fired=FiredView.of(firing))


class EditWithHistory(ListedEdit):
    history: list[EventView]


class EditList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ListedEdit]
    has_more: bool
    last_id: str | None
