"""Two that can be edited and asked: a server over HTTP, and a model in this process."""

from __future__ import annotations

import base64
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from benchmarks.flags import FlagEdit, Question
from editing_core.editable_model import EditableModel
from editing_core.editing import EditSession, Verify
from editing_core.errors import RequestError
from editing_core.evaluation.datasets.pictures import read_picture
from editing_core.types import EditRequest, GenerationResult, ImageArray

Advance = Callable[[int], None]
"""Called with how many more are done."""

_TRIES = 100
_PAUSE_S = 0.5
"""Between two looks at an edit that is being made."""
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Considered:
    """One edit that passed the image filter, and what became of it; see `Candidate`."""

    edit_id: str
    weight: float
    outcome: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A free greedy answer; `considered` has the highest weight first."""

    text: str
    stopped: bool
    considered: tuple[Considered, ...] = ()

    def is_same(self, other: Answer) -> bool:
        """Word for word, and ended alike."""
        return (self.text, self.stopped) == (other.text, other.stopped)


@dataclass(frozen=True, slots=True)
class Made:
    """What became of an edit: an id, or the error code of its refusal and what stood in its way."""

    edit_id: str | None
    refusal: str | None = None
    refinement_steps: int = 0
    after: str | None = None
    damaged: tuple[str, ...] = ()
    """Prompts or ids whose answers it would change."""


class Wish(Protocol):
    """An edit as it is wanted."""

    @property
    def question(self) -> Question: ...

    @property
    def target(self) -> str: ...


class Answerer(Protocol):
    """What the protocol needs."""

    def reset(self) -> None:
        """Take every edit back."""

    def edit(self, edits: Sequence[FlagEdit], advance: Advance) -> list[Made]:
        """Make the edits, one after another."""

    def ask(
        self, questions: Sequence[Question], *, with_edits: bool, advance: Advance
    ) -> list[Answer]:
        """Answers in the questions' order."""


class Server:
    """A running server, asked from several threads, edited from one.

    Pictures are relative to `root`, or absolute. `limits` go into every question, beside it.
    """

    def __init__(
        self,
        url: str,
        root: Path,
        *,
        verify: Verify,
        concurrency: int = 8,
        limits: Mapping[str, Any] = {},
    ) -> None:
        self._http = httpx.Client(base_url=url, timeout=600)
        self._limits = limits
        self._root = root
        self._verify = verify
        self._threads = ThreadPoolExecutor(concurrency)

    def close(self) -> None:
        self._threads.shutdown()
        self._http.close()

    def active_edits(self) -> int:
        """How many edits are in force."""
        return int(self._http.get("/versions").raise_for_status().json()["active_edits"])

    def reset(self) -> None:
        self._http.post("/admin/rollback", json={"to_version": 0}).raise_for_status()

    def edit(self, edits: Sequence[Wish], advance: Advance) -> list[Made]:
        """`POST /edits`, in order: an edit is verified beside those before it.

        Each is waited for: one that takes long is answered before it is made.
        """
        made = []
        for edit in edits:
            body = self._body(edit.question) | {"target": edit.target, "verify": self._verify}
            answer = self._post("/edits", body)
            if answer.is_client_error:
                made.append(_refused(answer.json()["error"]))
            else:
                made.append(self._finished(answer.raise_for_status().json()))
            advance(1)
        return made

    def _finished(self, edit: dict[str, Any]) -> Made:
        while edit["status"] == "pending":
            time.sleep(_PAUSE_S)
            edit = self._http.get(f"/edits/{edit['id']}").raise_for_status().json()
        if edit["status"] == "failed":
            return _refused(edit["error"])
        return Made(edit["id"], refinement_steps=edit["refinement_steps"])

    def ask(
        self, questions: Sequence[Question], *, with_edits: bool, advance: Advance
    ) -> list[Answer]:
        def one(question: Question) -> Answer:
            edits = "on" if with_edits else "off"
            body = self._body(question) | {"edits": edits, "explain": with_edits, **self._limits}
            answer = _answer(self._post("/generate", body).raise_for_status().json())
            advance(1)
            return answer

        return list(self._threads.map(one, questions))

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Once more after each 429 or 503, when the server says."""
        for _ in range(_TRIES):
            answer = self._http.post(path, json=body)
            if answer.status_code not in (429, 503):
                break
            time.sleep(float(answer.headers.get("Retry-After", 1)))
        return answer

    def _body(self, question: Question) -> dict[str, Any]:
        image = None if question.picture is None else encoded(self._root / question.picture)
        return {"image": image, "prompt": question.prompt}


class InProcess:
    """A model in this process, edited by the very steps of the service."""

    def __init__(self, model: EditableModel, root: Path, *, verify: Verify) -> None:
        self._model = model
        self._root = root
        self._verify: Verify = verify
        self.reset()

    def reset(self) -> None:
        self._session = EditSession(self._model, verify=self._verify)

    def edit(self, edits: Sequence[Wish], advance: Advance) -> list[Made]:
        made = []
        for edit in edits:
            image = self._image(edit.question)
            assert image is not None
            try:
                found = self._session.edit(EditRequest(image, edit.question.prompt, edit.target))
            except RequestError as error:
                made.append(Made(None, refusal=error.code))
            else:
                made.append(
                    Made(
                        edit_id=found.edit_id if found.accepted else None,
                        refusal=found.reason,
                        refinement_steps=found.refinement_steps,
                        after=found.after,
                        damaged=tuple(damage.edit_id or damage.prompt for damage in found.damaged),
                    )
                )
            advance(1)
        return made

    def ask(
        self, questions: Sequence[Question], *, with_edits: bool, advance: Advance
    ) -> list[Answer]:
        answers: list[Answer] = []
        for start in range(0, len(questions), _BATCH):
            rows = [(self._image(q), q.prompt) for q in questions[start : start + _BATCH]]
            answers += [_of(result) for result in self._session.answers(rows, edits=with_edits)]
            advance(len(rows))
        return answers

    def _image(self, question: Question) -> ImageArray | None:
        return None if question.picture is None else read_picture(self._root / question.picture)


@functools.lru_cache(maxsize=256)
def encoded(path: Path) -> str:
    """The file's own bytes, as a request holds them: whatever a user has is what is sent."""
    return base64.b64encode(path.read_bytes()).decode("ascii")


def _refused(error: dict[str, Any]) -> Made:
    questions = [damage["prompt"] for damage in error.get("damaged", ())]
    damaged = (*error.get("conflicts_with", ()), *questions)
    return Made(None, refusal=error["code"], after=error.get("after"), damaged=damaged)


def _answer(found: dict[str, Any]) -> Answer:
    considered = tuple(
        Considered(c["edit_id"], c["weight"], c["outcome"]) for c in found.get("candidates") or ()
    )
    return Answer(found["text"], found["finish_reason"] == "stop", _sorted(considered))


def _of(result: GenerationResult) -> Answer:
    considered = tuple(
        Considered(c.edit_id, c.weight, c.outcome) for c in result.decision.candidates
    )
    return Answer(result.text, result.finish_reason == "stop", _sorted(considered))


def _sorted(considered: tuple[Considered, ...]) -> tuple[Considered, ...]:
    return tuple(sorted(considered, key=lambda edit: -edit.weight))
