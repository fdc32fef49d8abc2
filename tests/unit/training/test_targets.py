"""Targets and questions for training: every script, never empty, and apart from evaluation's."""

from __future__ import annotations

import unicodedata

import numpy as np

from editing_core.heraldry.wordings import HELD_OUT
from editing_core.training.everyday import everyday_questions
from editing_core.training.targets import draw_target
from editing_core.training.world import (
    EmblemSubject,
    EverydaySubject,
    draw_view,
    identity,
    odd_prompt,
    subject,
    word,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_targets_are_trimmed_whole_text_in_many_scripts() -> None:
    random = rng()
    targets = [draw_target(random, ("red", "blue")) for _ in range(600)]

    assert all(t and t == t.strip() and unicodedata.is_normalized("NFC", t) for t in targets)
    scripts = {unicodedata.name(letter, "?").split()[0] for t in targets for letter in t}
    assert {"LATIN", "CYRILLIC", "CJK", "GREEK", "HIRAGANA", "DIGIT"} <= scripts
    plausible = sum(t in ("red", "blue") for t in targets)
    assert 200 < plausible < 400


def test_some_targets_repeat_themselves() -> None:
    random = rng()
    words = [draw_target(random, ()).split() for _ in range(300)]

    assert sum(len(w) > len(set(w)) for w in words) > 20


def test_long_targets_are_longer() -> None:
    random = rng()
    short = np.mean([len(draw_target(random, ("red",))) for _ in range(200)])
    long = np.mean([len(draw_target(random, ("red",), long=True)) for _ in range(200)])

    assert long > 2 * short


def test_equal_seeds_draw_equal_targets() -> None:
    first, second = rng(5), rng(5)

    assert [draw_target(first, ("a",)) for _ in range(50)] == [
        draw_target(second, ("a",)) for _ in range(50)
    ]


def test_a_subject_is_a_function_of_its_number() -> None:
    assert subject(3, "train") == subject(3, "train")
    assert subject(3, "train") != subject(3, "calibration")


def test_a_subjects_look_alike_differs_in_what_is_seen() -> None:
    for number in range(20):
        item = subject(number, "train")
        assert isinstance(item, EmblemSubject)
        assert item.emblem != item.twin


def test_a_share_of_the_subjects_is_everyday() -> None:
    subjects = [subject(number, "train", everyday_share=0.5) for number in range(40)]
    everyday = [item for item in subjects if isinstance(item, EverydaySubject)]
    assert 10 < len(everyday) < 30
    for item in everyday[:5]:
        own, _ = item.pictures(2, draw_view)
        assert item == subject(item.number, "train", everyday_share=0.5)
        assert own[0].dtype == np.uint8
        assert own[0].shape[2] == 3
        assert own[0].shape != own[1].shape or (own[0] != own[1]).any()
        assert item.scene != item.twin
        assert len({question.kind.split(":")[0] for question in item.questions}) == 1


def test_two_wordings_of_an_everyday_question_share_its_identity() -> None:
    first = everyday_questions(np.random.default_rng(1), 16)
    seen: dict[str, str] = {}
    for seed in range(40):
        for question in everyday_questions(np.random.default_rng(seed), 16):
            assert seen.setdefault(question.kind, identity(question)) == identity(question)
            assert len(set(question.wordings)) == len(question.wordings)
    assert len({identity(question) for question in first}) == len(first)


def test_no_two_questions_of_a_subject_are_the_same() -> None:
    for number in range(20):
        names = [identity(question) for question in subject(number, "train").questions]
        assert len(names) == len(set(names))


def test_questions_are_never_worded_as_in_evaluation() -> None:
    held_out = {wording for wordings in HELD_OUT.values() for wording in wordings}
    random = rng()
    for number in range(20):
        for question in subject(number, "train").questions:
            _, plain = word(question, random)
            assert plain in (*question.wordings, *question.variants)
            assert plain not in held_out


def test_a_rewording_avoids_the_wording_it_is_given() -> None:
    random = rng()
    question = next(q for q in subject(1, "train").questions if len(q.wordings) > 1)

    for _ in range(50):
        _, plain = word(question, random, avoid=question.wordings[0])
        assert plain != question.wordings[0]


def test_odd_prompts_are_all_different() -> None:
    random = rng()

    assert len({odd_prompt(random) for _ in range(100)}) == 100
