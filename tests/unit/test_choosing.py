"""One row's next token: biases, penalties, constraints, and what is reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from editing_core.choosing import Chooser, logprobs_of, sample
from editing_core.types import Sampling

LOGITS = torch.tensor([0.0, 3.0, 1.0, 2.0])


class Only:
    """Allows some tokens, whatever came before, and notes what did."""

    def __init__(self, *tokens: int) -> None:
        self._allowed = torch.tensor(tokens)
        self.asked: list[list[int]] = []

    def mask(self, tokens: Sequence[int]) -> Tensor:
        self.asked.append(list(tokens))
        return self._allowed


def chosen(count: int, *, constraint: Only | None = None, **fields: Any) -> list[int]:
    chooser = Chooser(Sampling(**fields), seed=0, constraint=constraint)
    return [chooser.choose(LOGITS) for _ in range(count)]


def test_without_anything_it_is_the_likeliest() -> None:
    assert chosen(3) == [1, 1, 1]


def test_a_bias_is_added() -> None:
    assert chosen(2, logit_bias=((2, 2.5), (1, -0.4))) == [2, 2]


def test_a_token_that_was_there_once_pays_once_or_each_time() -> None:
    assert chosen(6, presence_penalty=1.5) == [1, 3, 1, 1, 1, 1]
    assert chosen(5, frequency_penalty=1.5) == [1, 3, 1, 2, 3]


def test_only_what_is_allowed_is_chosen() -> None:
    rule = Only(0, 2, 9)  # no logit for 9

    assert chosen(3, constraint=rule) == [2, 2, 2]
    assert rule.asked == [[], [2], [2, 2]]
    drawn = Counter(token for token in chosen(200, constraint=Only(0, 3), temperature=5.0, seed=1))
    assert set(drawn) == {0, 3}


def test_the_logits_are_left_as_they_are() -> None:
    before = LOGITS.clone()
    chosen(3, logit_bias=((0, 5.0),), presence_penalty=1.0, constraint=Only(0, 1))

    assert torch.equal(LOGITS, before)


@pytest.mark.parametrize(("min_p", "expected"), [(0.0, {0, 1, 2, 3}), (0.3, {1, 3}), (1.0, {1})])
def test_min_p_leaves_out_what_is_far_less_likely(min_p: float, expected: set[int]) -> None:
    random = torch.Generator()
    random.manual_seed(0)
    sampling = Sampling(temperature=1.0, min_p=min_p)

    assert {sample(LOGITS, sampling, random) for _ in range(300)} == expected


def test_what_is_reported_is_the_models_own_before_anything() -> None:
    sampling = Sampling(top_logprobs=2, logit_bias=((0, 9.0),), temperature=0.5)
    chooser = Chooser(sampling, seed=0, constraint=Only(0))
    chooser.choose(LOGITS)
    (found,) = chooser.logprobs
    expected = LOGITS.log_softmax(-1)

    assert found.token_id == 0
    assert found.logprob == pytest.approx(float(expected[0]))
    assert [token for token, _ in found.top] == [1, 3]
    assert found.top[0][1] == pytest.approx(float(expected[1]))


def test_of_many_lines_each_has_its_own() -> None:
    found = logprobs_of(torch.stack([LOGITS, LOGITS.flip(0)]), [1, 1], 1)

    assert [token for line in found for token, _ in line.top] == [1, 2]
    assert found[0].logprob > found[1].logprob
    assert logprobs_of(LOGITS[None], [1], 0)[0].top == ()
