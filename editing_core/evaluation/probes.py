"""Edits to make and the probes that show what they did: the values every source of cases gives.

What is asked once an edit, and others beside it, are in force:

    reliability                      the edit's own picture and prompt
    text generality                  its picture, the question in words held out from training
    image generality                 another view of the same thing, the edit's own prompt
    both generalities                another view, held-out words
    portability                      a question whose answer follows from the edit by one more fact

must give the new answer (`answer`, or else the edit's target), and a refused edit is a miss;

    text locality                    another question without a picture
    image locality                   a picture nobody edited, another question
    no image, same question          the edit's question without a picture
    same image, other question       its picture, a question of another kind
    look-alike, same question        a picture that differs in one attribute, the same question
    grey image, same question        one even grey, the same question
    random image, same question      an unrelated picture that nobody edited, the same question

must give what the unedited model gives, refused or not.

*Exact match*: the whole text of the free greedy answer equals what it must, and the stop token
ended it. *Token accuracy*, kept apart and only for `PUBLISHED` kinds: teacher-forced on what it
must give, see `contender`.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from editing_core.types import EditRequest, ImageArray

RELIABILITY = "reliability"
PORTABILITY = "portability"
GENERALITY = (RELIABILITY, "text generality", "image generality", "both generalities")
LOCALITY = (
    "text locality",
    "image locality",
    "no image, same question",
    "same image, other question",
    "look-alike, same question",
    "grey image, same question",
    "random image, same question",
)
KINDS = (*GENERALITY, PORTABILITY, *LOCALITY)
"""All kinds in the order of the tables. A source of cases may leave some out and add its own: one
outside `GENERALITY` whose probe names no `answer` is judged as locality."""

PUBLISHED = (
    RELIABILITY,
    "text generality",
    "image generality",
    "text locality",
    "image locality",
    PORTABILITY,
)
"""The kinds of published tables: those that are also scored by teacher-forced token accuracy."""


@dataclass(frozen=True, slots=True, eq=False)
class EditProbe:
    """What to ask after the edits. `answer` stands in for the edit's target where it differs."""

    kind: str
    image: ImageArray | None
    prompt: str
    answer: str | None = None

    @property
    def is_locality(self) -> bool:
        """Whether it must answer as the unedited model does."""
        return self.answer is None and self.kind not in GENERALITY


@dataclass(frozen=True, slots=True, eq=False)
class EditCase:
    """One edit and its probes.

    `seed` names the case within its source (a record's index, a drawn emblem's number);
    `question_kind` and `target_group` are for the report; cases of one `group` belong together.
    """

    seed: int
    image: ImageArray
    prompt: str
    target: str
    question_kind: str
    target_group: str
    probes: tuple[EditProbe, ...]
    group: int | None = None

    @property
    def request(self) -> EditRequest:
        """The edit, as an editor takes it."""
        return EditRequest(image=self.image, prompt=self.prompt, target=self.target)

    def expected(self, probe: EditProbe, unedited: str) -> str:
        """What `probe` must answer, given what the unedited model answers."""
        if probe.is_locality:
            return unedited
        return self.target if probe.answer is None else probe.answer


def is_same(answer: str, expected: str) -> bool:
    """Equal after NFC and trimming; nothing else is forgiven."""
    return _plain(answer) == _plain(expected)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
