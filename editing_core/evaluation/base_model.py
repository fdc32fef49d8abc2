"""How good the embedded model is before any edit: what it sees, what it knows, its image keys.

Every probe is new: emblems of the `unseen` split, views from the public stream, held-out wordings.
An answer counts when free greedy generation gives it exactly and then stops.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from editing_core.editable_model import EditableModel
from editing_core.evaluation.report import Figure, rate
from editing_core.generation import GenerationRow
from editing_core.heraldry.emblem import (
    NUM_KNOWN,
    emblem_from_seed,
    stream,
    twin,
)
from editing_core.heraldry.places import known_places, strangers
from editing_core.heraldry.questions import Question, questions_about, text_questions
from editing_core.heraldry.views import view_of
from editing_core.types import ImageArray, Sampling

Progress = Callable[[str, int, int], None]
# Seeds of the emblems that stand as probes; far from the small seeds people try by hand.
_FIRST_PROBE, _FIRST_KEY_PROBE = 500_000, 600_000
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Probe:
    """A question with the answer that counts."""

    kind: str
    group: str
    image: ImageArray | None
    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many probes of each sort; `quick` is for a first look."""

    perception_emblems: int = 600
    unknown_emblems: int = 300
    known: int = NUM_KNOWN
    key_emblems: int = 1000

    @classmethod
    def quick(cls) -> Sizes:
        """About a tenth of the probes."""
        return cls(60, 30, 30, 200)


def evaluate_base_model(
    model: EditableModel, sizes: Sizes, *, progress: Progress | None = None
) -> list[Figure]:
    """All figures of the embedded model, in the order of its table."""
    probes = list(_all_probes(sizes))
    hits: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(probes), _BATCH):
        batch = probes[start : start + _BATCH]
        for probe, hit in zip(batch, answers_exactly(model, batch), strict=True):
            hits[probe.group].append(hit)
            hits[f"{probe.group}: {probe.kind}"].append(hit)
        if progress:
            progress("questions", min(start + _BATCH, len(probes)), len(probes))
    figures = [
        rate("perception, unseen emblems", hits["perception"], goal=0.98),
        *(
            rate(name, hits[name], goal=0.95)
            for name in sorted(hits)
            if name.startswith("perception: ")
        ),
        rate("knowledge, new views of known emblems", hits["knowledge"], goal=0.99),
        rate("unknown, facts about unseen emblems", hits["unknown"]),
        rate("text only, facts by name", hits["text"], goal=0.99),
        rate("text only, names nobody knows", hits["text unknown"]),
    ]
    return figures + evaluate_image_keys(model, sizes, progress=progress)


def answers_exactly(model: EditableModel, probes: Sequence[Probe]) -> list[bool]:
    """Whether each probe is answered exactly, stop token included, without any edit."""
    sampling = Sampling(max_new_tokens=64)
    rows = [GenerationRow(probe.prompt, probe.image, sampling) for probe in probes]
    return [
        result.finish_reason == "stop" and result.text == probe.answer
        for result, probe in zip(model.generate(rows), probes, strict=True)
    ]


def evaluate_image_keys(
    model: EditableModel, sizes: Sizes, *, progress: Progress | None = None
) -> list[Figure]:
    """Recall of new views, and what passes the shipped threshold."""
    count = sizes.key_emblems
    seeds = range(_FIRST_KEY_PROBE, _FIRST_KEY_PROBE + count)
    first, second, twins = [], [], []
    for index, seed in enumerate(seeds):
        emblem = emblem_from_seed(seed)
        look_alike = twin(emblem, stream("unseen", seed, 0, 21))[0]
        first.append(model.image_key(view_of(emblem, seed=seed, view=0).image))
        second.append(model.image_key(view_of(emblem, seed=seed, view=1).image))
        twins.append(model.image_key(view_of(look_alike, seed=seed, view=2).image))
        if progress and index % 50 == 49:
            progress("image keys", index + 1, count)
    stored, queries, rivals = np.stack(first), np.stack(second), np.stack(twins)
    half = count // 2
    with_twins = np.concatenate([stored[:half], rivals[:half]])
    same = (stored * queries).sum(axis=1)
    others = queries @ stored.T
    others = others[~np.eye(count, dtype=bool)]
    look_alikes = (rivals * stored).sum(axis=1)
    tau = model.router.tau
    return [
        rate("image key recall@1", _recall(queries, stored), goal=0.999, protocol="recall@1"),
        rate(
            "image key recall@1, half of them twins",
            _recall(queries[:half], with_twins),
            goal=0.98,
            protocol="recall@1",
        ),
        rate(f"same emblem passes tau {tau:.3f}", _list(same >= tau), goal=0.995, protocol="rate"),
        rate(
            "random other emblem passes tau",
            _list(others >= tau),
            goal=0.001,
            better="low",
            protocol="rate",
        ),
        rate("one-attribute look-alike passes tau", _list(look_alikes >= tau), protocol="rate"),
    ]


def _recall(queries: NDArray[np.float32], stored: NDArray[np.float32]) -> list[bool]:
    return _list((queries @ stored.T).argmax(axis=1) == np.arange(len(queries)))


def _list(hits: NDArray[np.bool_]) -> list[bool]:
    return [bool(hit) for hit in hits]


def _all_probes(sizes: Sizes) -> Iterator[Probe]:
    for seed in range(_FIRST_PROBE, _FIRST_PROBE + sizes.perception_emblems):
        image = view_of(emblem_from_seed(seed), seed=seed, view=0).image
        rng = stream("unseen", seed, 0, 22)
        questions = questions_about(emblem_from_seed(seed), rng)
        for question in questions:
            if question.group == "perception":
                yield _probe(question, "perception", image, rng)
        if seed < _FIRST_PROBE + sizes.unknown_emblems:
            facts = [question for question in questions if question.group == "knowledge"]
            yield _probe(facts[int(rng.integers(len(facts)))], "unknown", image, rng)
    for number in range(sizes.known):
        place = known_places()[number]
        rng = stream("known", number, 0, 22)
        emblem = emblem_from_seed(number, "known")
        image = view_of(emblem, seed=number, view=0, split="known").image
        for question in questions_about(emblem, rng, place=place):
            if question.group == "knowledge":
                yield _probe(question, "knowledge", image, rng)
        for question in text_questions(place, rng, known=True):
            yield _probe(question, "text", None, rng)
        stranger = strangers()[number]
        unknown = text_questions(stranger, rng, known=False)
        yield _probe(unknown[int(rng.integers(len(unknown)))], "text unknown", None, rng)


def _probe(
    question: Question, group: str, image: ImageArray | None, rng: np.random.Generator
) -> Probe:
    options = question.held_out_wordings
    prompt = options[int(rng.integers(len(options)))]
    return Probe(question.kind, group, image, prompt, question.answer)
