"""Losses: right by hand on small cases, and blind to padding."""

from __future__ import annotations

import torch

from editing_core.objectives.losses import (
    IGNORED,
    balanced_binary,
    contrastive,
    kl_base_to_edited,
    sequence_nll,
    token_accuracy,
)

YES, NO = True, False


def test_a_rows_likelihood_is_the_mean_over_its_own_tokens() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 2, IGNORED], [0, 3, 4]])

    losses = sequence_nll(logits, targets)

    log_p = logits.log_softmax(-1)
    torch.testing.assert_close(losses[0], -(log_p[0, 0, 1] + log_p[0, 1, 2]) / 2)
    torch.testing.assert_close(losses[1], -(log_p[1, 0, 0] + log_p[1, 1, 3] + log_p[1, 2, 4]) / 3)


def test_divergence_is_from_base_to_edited_and_skips_padding() -> None:
    random = torch.Generator().manual_seed(0)
    edited, base = (torch.randn(1, 2, 5, generator=random) for _ in range(2))
    targets = torch.tensor([[1, IGNORED]])

    divergence = kl_base_to_edited(edited, base, targets)

    p, q = base[0, 0].softmax(-1), edited[0, 0].softmax(-1)
    torch.testing.assert_close(divergence[0], (p * (p / q).log()).sum())
    torch.testing.assert_close(kl_base_to_edited(base, base, targets), torch.zeros(1))


def test_no_gradient_reaches_the_base() -> None:
    edited = torch.randn(1, 2, 5, requires_grad=True)
    base = torch.randn(1, 2, 5, requires_grad=True)

    kl_base_to_edited(edited, base, torch.tensor([[1, 1]])).sum().backward()  # type: ignore[no-untyped-call]

    assert base.grad is None
    assert edited.grad is not None


def test_a_row_counts_as_exact_only_when_every_token_is() -> None:
    logits = torch.eye(4)[torch.tensor([[1, 2, 0], [1, 3, 0]])]
    targets = torch.tensor([[1, 2, IGNORED], [1, 2, IGNORED]])

    assert token_accuracy(logits, targets) == (0.75, 0.5)


def test_contrast_with_one_positive_is_cross_entropy() -> None:
    scores = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 9.0]])
    positive = torch.tensor([[YES, NO, NO], [NO, YES, NO]])
    candidate = torch.tensor([[YES, YES, YES], [YES, YES, NO]])

    loss = contrastive(scores, positive=positive, candidate=candidate)

    first = -scores[0].log_softmax(0)[0]
    second = -scores[1, :2].log_softmax(0)[1]
    torch.testing.assert_close(loss, (first + second) / 2)


def test_contrast_skips_queries_without_a_positive() -> None:
    scores = torch.tensor([[2.0, 0.0], [5.0, 7.0]], requires_grad=True)
    every = torch.ones(2, 2, dtype=torch.bool)
    positive = torch.tensor([[YES, NO], [NO, NO]])

    loss = contrastive(scores, positive=positive, candidate=every)

    torch.testing.assert_close(loss, -scores[0].log_softmax(0)[0])
    assert contrastive(scores, positive=~every, candidate=every).item() == 0.0


def test_one_positive_weighs_as_much_as_many_negatives() -> None:
    logits = torch.tensor([1.0, -1.0, -1.0, -1.0])
    positive = torch.tensor([YES, NO, NO, NO])

    loss = balanced_binary(logits, positive=positive, negative=~positive)

    torch.testing.assert_close(loss, 2 * torch.nn.functional.softplus(torch.tensor(-1.0)))
    assert balanced_binary(logits, positive=positive & NO, negative=positive & NO).item() == 0.0
