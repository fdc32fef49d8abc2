"""The worlds of `benchmarks.scope`: what is edited in each, and what is asked then."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from benchmarks.flags import FlagData, read_flags
from benchmarks.scope_tables import Tally
from benchmarks.scope_wordings import Asked
from editing_core.editable_model import EditableModel
from editing_core.editing import EditSession
from editing_core.errors import RequestError
from editing_core.evaluation.datasets.pictures import read_picture
from editing_core.evaluation.probes import is_same
from editing_core.heraldry.sample import draw_sample
from editing_core.types import EditRequest, ImageArray

_FIRST_SEED = 915_000
_EMBLEMS, _FLAGS, _PHOTOS, _EMOJI = 20, 24, 60, 200
_EDITS_EACH = 4
_AT_ONCE = 32
_BINS = ((28.0, 256.0), (20.0, 28.0), (8.0, 20.0), (0.0, 8.0))


@dataclass(frozen=True)
class Context:
    """What every world needs. `limit` bounds the pictures."""

    model: EditableModel
    editor: str
    data: Path | None
    wordings: Mapping[str, Asked]
    limit: int | None
    progress: Progress

    def folder(self) -> Path:
        if self.data is None:
            raise ValueError("this world needs --data")
        return self.data

    def count(self, usual: int) -> int:
        return usual if self.limit is None else min(usual, self.limit)


@dataclass(frozen=True, slots=True)
class World:
    """How a world runs."""

    run: Callable[[Context], list[Tally]]
    needs_data: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Probe:
    """One question. `target` None: the base model's answer must stay.

    `owner` is the edit that it is about, by subject and attribute; None where any edit's acting
    counts. A confusable of one attribute may well ask for another that is edited too.
    """

    kind: str
    image: ImageArray
    prompt: str
    target: str | None
    owner: tuple[int, str] | None = None
    rivals: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class _Subject:
    """One picture with the edits to be made on it: `(attribute, prompt, target)`."""

    image: ImageArray
    edits: tuple[tuple[str, str, str], ...]


def _emblems(context: Context) -> list[Tally]:
    names = {name.removeprefix("emblem_"): a for name, a in _of_world(context, "emblem")}
    subjects = []
    for number in range(context.count(_EMBLEMS)):
        sample = draw_sample(_FIRST_SEED + number)
        questions = [q for q in sample.questions if q.kind in names]
        # Turning through the attributes, so that each is edited on some emblem.
        turned = questions[number % len(questions) :] + questions[: number % len(questions)]
        edits = tuple(
            (q.kind, _prompt(names[q.kind], number + i), q.alternatives[number % 2])
            for i, q in enumerate(turned[:_EDITS_EACH])
        )
        subjects.append(_Subject(sample.picture.image, edits))
    return _worded(context, subjects, names)


def _flags(context: Context) -> list[Tally]:
    names = dict(_of_world(context, "flag"))
    data = read_flags(context.folder())
    by_flag: dict[str, list[tuple[str, str]]] = {}
    for edit in data.edits:
        if edit.fact in names:
            by_flag.setdefault(edit.record.image, []).append((edit.fact, edit.target))
    subjects = []
    for number, (flag, facts) in enumerate(list(by_flag.items())[: context.count(_FLAGS)]):
        edits = tuple(
            (fact, _prompt(names[fact], number + i), target)
            for i, (fact, target) in enumerate(facts)
        )
        subjects.append(_Subject(read_picture(data.root / flag), edits))
    return _worded(context, subjects, names)


def _near(context: Context) -> list[Tally]:
    """Half the countries edited by one question; the other half's flags asked the same."""
    data = read_flags(context.folder())
    asked = context.wordings["capital"]
    edited, others = _halves(data, "capital")
    edited, others = edited[: context.count(90)], others[: context.count(90)]
    prompt = asked.prompts[0]
    subjects = [
        _Subject(read_picture(data.root / flag), (("capital", prompt, target),))
        for flag, target in edited
    ]
    flags = [flag for flag, _ in edited]
    probes = []
    for flag, _ in others:
        distance, _ = data.nearest(flag, flags)
        low, high = next(b for b in _BINS if b[0] <= distance < b[1])
        kind = f"another flag, {low:.0f} to {high:.0f} from an edited one"
        probes.append(_Probe(kind, read_picture(data.root / flag), prompt, None))
    return _run(context, subjects, probes)


def _halves(data: FlagData, fact: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    edited, others = data.halves(0)
    return (
        [(e.record.image, e.target) for e in edited if e.fact == fact],
        [(e.record.image, e.target) for e in others if e.fact == fact],
    )


def _photos(context: Context) -> list[Tally]:
    folder = context.folder()
    photos = json.loads((folder / "grocery/labels.json").read_text("utf-8"))["photos"]
    by_name: dict[str, list[str]] = {}
    for photo in photos:
        by_name.setdefault(photo["name"], []).append(photo["file"])
    asked = context.wordings["product_name"]
    names = list(by_name)
    # Every third product is edited, in all its photographs but the last; the others are not.
    edited = names[::3]
    subjects: list[_Subject] = []
    probes: list[_Probe] = []
    for number, name in enumerate(edited):
        for file in by_name[name][:-1]:
            if len(subjects) < context.count(_PHOTOS):
                target = names[(number * 3 + 7) % len(names)]
                edit = ("product_name", _prompt(asked, number), target)
                subjects.append(_Subject(read_picture(folder / file), (edit,)))
    for number, name in enumerate(n for n in names if n not in edited):
        for file in by_name[name]:
            image = read_picture(folder / file)
            prompt = _prompt(asked, number)
            probes.append(_Probe("photograph of what nobody edited", image, prompt, None))
    return _run(context, subjects, probes[: context.count(len(probes))])


def _emoji(context: Context) -> list[Tally]:
    folder = context.folder()
    listed = json.loads((folder / "emoji/names.json").read_text("utf-8"))["emoji"]
    asked = context.wordings["product_name"]
    # Spread over all groups; those between the edited ones are asked.
    step = max(1, len(listed) // (2 * _EMOJI))
    chosen = listed[::step][: 2 * _EMOJI]
    subjects, probes = [], []
    for number, item in enumerate(chosen):
        image = read_picture(folder / item["file"])
        if number % 2 == 0:
            edit = ("product_name", asked.prompts[0], chosen[-1 - number]["name"])
            subjects.append(_Subject(image, (edit,)))
        else:
            probes.append(_Probe("emoji that nobody edited", image, asked.prompts[0], None))
    count = context.count(_EMOJI)
    return _run(context, subjects[:count], probes[:count])


def _topics(context: Context) -> list[Tally]:
    from editing_core.questions.corpus import by_topic, read_corpus
    from editing_core.training.question_figures import FALSE_FIRES, compare, cut_at, hits

    encoder = context.model.questions
    if encoder is None:
        raise ValueError("there is no question encoder")
    import torch

    topics = by_topic(read_corpus(), "test")
    compared = compare(lambda texts: torch.from_numpy(encoder.keys(texts)), topics)
    tallies = []
    for share in FALSE_FIRES:
        at = hits(compared, cut_at(compared, share))
        tally = Tally(f"hit where {share:.0%} of confusables fire", must_change=True)
        tally.probes, tally.extra = len(compared.wanted), at
        tallies.append(tally)
    return tallies


WORLDS: Mapping[str, World] = {
    "emblems": World(_emblems, needs_data=False),
    "flags": World(_flags, needs_data=True),
    "near": World(_near, needs_data=True),
    "photos": World(_photos, needs_data=True),
    "emoji": World(_emoji, needs_data=True),
    "topics": World(_topics, needs_data=False),
}


def _of_world(context: Context, world: str) -> list[tuple[str, Asked]]:
    return [(name, asked) for name, asked in context.wordings.items() if asked.world == world]


def _prompt(asked: Asked, number: int) -> str:
    return asked.prompts[number % len(asked.prompts)]


def _worded(
    context: Context, subjects: Sequence[_Subject], names: Mapping[str, Asked]
) -> list[Tally]:
    probes: list[_Probe] = []
    for number, subject in enumerate(subjects):
        for attribute, prompt, target in subject.edits:
            asked, owner = names[attribute], (number, attribute)
            rivals = frozenset(t for a, _, t in subject.edits if a != attribute)
            image = subject.image
            probes.append(_Probe("its own prompt", image, prompt, target, owner, rivals))
            probes += [
                _Probe(kind, image, text, target, owner, rivals)
                for kind, texts in asked.wordings.items()
                for text in texts
            ]
            probes += [_Probe("confusable", image, text, None, owner) for text in asked.confusables]
            probes += [_Probe("another question", image, text, None) for text in asked.others]
    return _run(context, subjects, probes)


def _run(context: Context, subjects: Sequence[_Subject], probes: Sequence[_Probe]) -> list[Tally]:
    session = EditSession(context.model, editor=context.editor, verify="report")
    task = context.progress.add_task("edits", total=len(subjects))
    targets: set[str] = set()
    made: dict[tuple[int, str], str] = {}
    for number, subject in enumerate(subjects):
        for attribute, prompt, target in subject.edits:
            try:
                outcome = session.edit(EditRequest(subject.image, prompt, target))
            except RequestError:
                continue  # its probes count as misses
            made[number, attribute] = outcome.edit_id
            targets.add(target)
        context.progress.advance(task)
    task = context.progress.add_task("probes", total=len(probes))
    tallies: dict[str, Tally] = {}
    for chunk in _chunks(probes):
        rows = [(probe.image, probe.prompt) for probe in chunk]
        base = session.answers(rows, edits=False)
        for probe, before, after in zip(chunk, base, session.answers(rows), strict=True):
            tally = tallies.setdefault(probe.kind, Tally(probe.kind, probe.target is not None))
            tally.probes += 1
            stays = after.text == before.text
            wanted = probe.target
            tally.hits += stays if wanted is None else is_same(after.text, wanted)
            tally.off += wanted is None or is_same(before.text, wanted)
            acting = {candidate.edit_id for candidate in after.decision.applied}
            tally.fired += bool(acting) if probe.owner is None else made.get(probe.owner) in acting
            others = probe.rivals if wanted is not None else targets
            tally.wrong += not stays and any(is_same(after.text, rival) for rival in others)
            tally.mixed += not stays and not any(is_same(after.text, t) for t in targets)
        context.progress.advance(task, len(chunk))
    return list(tallies.values())


def _chunks(probes: Sequence[_Probe]) -> Iterator[Sequence[_Probe]]:
    for start in range(0, len(probes), _AT_ONCE):
        yield probes[start : start + _AT_ONCE]
