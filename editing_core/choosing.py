"""One row's next token from its logits, as its `Sampling` says.

In this order: penalties and biases, the constraint, temperature, `min_p` and `top_p`. What is
reported as a log-probability is the model's own, before all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from editing_core.grammar import Constraint
from editing_core.types import Sampling, TokenLogprob


class Chooser:
    """Chooses the tokens of one row, one after another. `logprobs` are those chosen so far.

    They stay empty unless `sampling.top_logprobs` is given.
    """

    def __init__(self, sampling: Sampling, *, seed: int, constraint: Constraint | None) -> None:
        self._sampling = sampling
        self._constraint = constraint
        self._random = torch.Generator()
        self._random.manual_seed(seed)
        self._chosen: list[int] = []
        self._counts: Counter[int] = Counter()
        self.logprobs: list[TokenLogprob] = []

    def choose(self, logits: Tensor) -> int:
        """The next token, from float32 logits `[vocab]`, which are left as they are."""
        token = self._pick(self._allowed(self._weighed(logits)))
        if self._sampling.top_logprobs is not None:
            self.logprobs += logprobs_of(logits[None], [token], self._sampling.top_logprobs)
        self._chosen.append(token)
        self._counts[token] += 1
        return token

    def _pick(self, logits: Tensor) -> int:
        if self._sampling.temperature <= 0.0:
            return int(logits.argmax())
        return sample(logits, self._sampling, self._random)

    def _weighed(self, logits: Tensor) -> Tensor:
        sampling = self._sampling
        changes = dict(sampling.logit_bias)
        if sampling.frequency_penalty or sampling.presence_penalty:
            for token, count in self._counts.items():
                penalty = sampling.frequency_penalty * count + sampling.presence_penalty
                changes[token] = changes.get(token, 0.0) - penalty
        if not changes:
            return logits
        weighed = logits.clone()
        tokens = torch.tensor(list(changes), device=logits.device)
        weighed[tokens] += torch.tensor(list(changes.values()), device=logits.device)
        return weighed

    def _allowed(self, logits: Tensor) -> Tensor:
        if self._constraint is None:
            return logits
        allowed = self._constraint.mask(self._chosen)
        # Tokenizers may have tokens that the model has no logit for.
        allowed = allowed[allowed < len(logits)].to(logits.device)
        masked = torch.full_like(logits, -torch.inf)
        masked[allowed] = logits[allowed]
        return masked


def sample(logits: Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """Draw from the smallest set of tokens that holds `top_p` of the probability.

    Of those, tokens less likely than `min_p` times the likeliest are left out.
    """
    # On the CPU and in float64, so that a seed means the same on every device.
    scaled = logits.double().cpu()
    probabilities = ((scaled - scaled.max()) / sampling.temperature).softmax(-1)
    ordered, tokens = probabilities.sort(descending=True, stable=True)
    is_left_out = ordered.cumsum(-1) - ordered >= sampling.top_p
    ordered[is_left_out | (ordered < sampling.min_p * ordered[0])] = 0.0
    return int(tokens[torch.multinomial(ordered, 1, generator=random)])


def logprobs_of(logits: Tensor, tokens: Sequence[int], top: int) -> list[TokenLogprob]:
    """Of each of `tokens`, by its line of `logits` `[tokens, vocab]`, with the `top` likeliest."""
    logprobs = logits.float().log_softmax(-1)
    best = logprobs.topk(top, dim=-1)
    ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        TokenLogprob(token, float(logprobs[i, token]), tuple(zip(ids, values, strict=True)))
        for i, (token, (ids, values)) in enumerate(zip(tokens, ranked, strict=True))
    ]
