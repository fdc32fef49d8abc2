"""Which experts a row of a training batch carries, and how strongly: weights like a router's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mixing(rows: Sequence[tuple[int, bool]], edits: int, rng: np.random.Generator) -> np.ndarray:
    """Weights like a router's, `[rows, edits]`, each row summing to 1.

    A row is the edit it is asked with, and whether it must be left alone. Rows in scope carry their
    own expert, alone in two rows of five, else ahead of up to four rivals by a random margin that
    may be none. Rows to be left alone carry the expert of the edit they are asked with, or only
    strangers, where there are any.
    """
    weights = np.zeros((len(rows), edits))
    for row, (own, is_kept) in enumerate(rows):
        rivals = rng.permutation(np.delete(np.arange(edits), own))[: int(rng.integers(1, 5))]
        kind = rng.random()
        if is_kept and kind < 0.2 and len(rivals):
            members = rivals
        else:
            members = np.array([own]) if kind < 0.5 else np.array([own, *rivals])
        scores = np.zeros(len(members))
        scores[0] = max(0.0, rng.uniform(-1.0, 5.0))
        exponentials = np.exp(scores)
        weights[row, members] = exponentials / exponentials.sum()
    return weights
