"""Edits that meet: several on one picture, one question on look-alikes, and two-hop facts.

    2 / 4 questions, one picture    edits of different questions, distinct targets, one view
    2 / 4 look-alikes, one question the same words on an emblem and on emblems that differ from it
                                    in one attribute each, distinct targets
    two-hop                         whose emblem this is, taught as a known place; asked what the
                                    model knows of that place (`portability`)

All groups of a set are in force together. A group is right when each edit gives its own target.
"""

from __future__ import annotations

from collections.abc import Callable

from editing_core.evaluation.edit_cases import held_out, target_for
from editing_core.evaluation.fresh import Role, emblem_of
from editing_core.evaluation.probes import GENERALITY, PORTABILITY, EditCase, EditProbe
from editing_core.heraldry.emblem import Emblem, stream, twin
from editing_core.heraldry.places import known_places
from editing_core.heraldry.questions import Question, questions_about, text_questions
from editing_core.heraldry.views import view_of
from editing_core.types import EditRequest

BY_NAME = "second fact, by name"
"""Asked without a picture and with the place's name: what two-hop portability builds on."""
GROUPS_PER_SET = 250
"""How many groups a set has for each seed."""


class GroupCases:
    """The edits of one set, group after group; a sequence of cases like `HeraldryCases`."""

    def __init__(self, name: str, groups: int, *, seed: int = 0) -> None:
        if name not in SETS:
            raise LookupError(f"unknown set {name!r}; known: {', '.join(SETS)}")
        if groups > GROUPS_PER_SET:
            raise ValueError(f"a set has at most {GROUPS_PER_SET} groups")
        self.name = name
        self.size, self._draw = SETS[name]
        self._groups = groups
        self._first = list(SETS).index(name) * GROUPS_PER_SET
        self._seed = seed
        self._last: tuple[int, list[EditCase]] = (-1, [])

    def __len__(self) -> int:
        return self._groups * self.size

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is asked of each edit."""
        return tuple(probe.kind for probe in self[0].probes)

    def __getitem__(self, index: int) -> EditCase:
        if not 0 <= index < len(self):
            raise IndexError(index)
        group, member = divmod(index, self.size)
        if self._last[0] != group:
            self._last = (group, self._draw(self._seed, self._first + group, self.size))
        return self._last[1][member]

    def request(self, index: int) -> EditRequest:
        """The edit alone."""
        return self[index].request


def look_alikes(seed: int, index: int, size: int) -> tuple[int, list[Emblem]]:
    """An emblem's number, and `size` emblems: itself and different look-alikes of it."""
    number, emblem = emblem_of(Role.GROUPED, seed, index)
    rng = stream("unseen", number, size, 34)
    found = [emblem]
    while len(found) < size:
        other = twin(emblem, rng)[0]
        if other not in found:
            found.append(other)
    return number, found


def _questions(seed: int, index: int, size: int) -> list[EditCase]:
    number, emblem = emblem_of(Role.GROUPED, seed, index)
    rng = stream("unseen", number, size, 35)
    questions = questions_about(emblem, rng)
    chosen = [questions[i] for i in rng.permutation(len(questions))[:size]]
    cases: list[EditCase] = []
    for member, question in enumerate(chosen):
        target = _target(question, index, member, {case.target for case in cases})
        cases.append(_case(emblem, number, (0, 1), question, target, seed, index))
    return cases


def _look_alikes(seed: int, index: int, size: int) -> list[EditCase]:
    number, members = look_alikes(seed, index, size)
    rng = stream("unseen", number, size, 36)
    asked = [{q.wordings[0]: q for q in questions_about(emblem, rng)} for emblem in members]
    shared = [words for words in asked[0] if all(words in other for other in asked)]
    words = shared[int(rng.integers(len(shared)))]
    cases: list[EditCase] = []
    for member, emblem in enumerate(members):
        question = asked[member][words]
        target = _target(question, index, member, {case.target for case in cases})
        views = (2 * member, 2 * member + 1)
        cases.append(_case(emblem, number, views, question, target, seed, index))
    return cases


def _two_hop(seed: int, index: int, size: int) -> list[EditCase]:
    del size
    number, emblem = emblem_of(Role.GROUPED, seed, index)
    rng = stream("unseen", number, seed, 37)
    place = known_places()[int(rng.integers(len(known_places())))]
    questions = {q.kind: q for q in questions_about(emblem, rng)}
    by_name = text_questions(place, rng, known=True)
    fact = by_name[int(rng.integers(len(by_name)))]
    case = _case(emblem, number, (0, 1), questions["place"], place.place, seed, index)
    hop = EditProbe(PORTABILITY, case.image, held_out([questions[fact.kind]], rng), fact.answer)
    named = EditProbe(BY_NAME, None, held_out([fact], rng), fact.answer)
    return [
        EditCase(
            seed=number,
            image=case.image,
            prompt=case.prompt,
            target=case.target,
            question_kind="place",
            target_group="known place",
            probes=(*case.probes, hop, named),
            group=index,
        )
    ]


def _target(question: Question, index: int, member: int, used: set[str]) -> str:
    """One that no other edit of the group has."""
    rng = stream("unseen", index, member, 38)
    while (target := target_for(question, index + 3 * member, rng)[0]) in used:
        member += 1
    return target


def _case(
    emblem: Emblem,
    number: int,
    views: tuple[int, int],
    question: Question,
    target: str,
    seed: int,
    index: int,
) -> EditCase:
    """One edit on the first view; the same words in every look-alike's case of a group."""
    rng = stream("unseen", number, seed, 39)
    image, new_view = (view_of(emblem, seed=number, view=view).image for view in views)
    prompt = question.wordings[int(rng.integers(len(question.wordings)))]
    reworded = held_out([question], rng)
    asks = ((image, prompt), (image, reworded), (new_view, prompt), (new_view, reworded))
    return EditCase(
        seed=number,
        image=image,
        prompt=prompt,
        target=target,
        question_kind=question.kind,
        target_group="group",
        probes=tuple(EditProbe(kind, *ask) for kind, ask in zip(GENERALITY, asks, strict=True)),
        group=index,
    )


SETS: dict[str, tuple[int, Callable[[int, int, int], list[EditCase]]]] = {
    "2 questions, one picture": (2, _questions),
    "4 questions, one picture": (4, _questions),
    "2 look-alikes, one question": (2, _look_alikes),
    "4 look-alikes, one question": (4, _look_alikes),
    "two-hop": (1, _two_hop),
}
"""Name -> edits a group, and what draws one."""
