"""The weight of a penalty, learned against what it penalises: lambda(delta, phi) of ODEdit.

`phi` is whatever is being trained. `lambda` is the Softplus of a small perceptron `delta` that
reads a summary of `phi`; the training lowers the penalised loss, `delta` climbs it. In both papers
the perceptron reads all of `phi`, one number after the other. Here `phi` is multiplied by random
signs, drawn from a seed, and folded by addition to at most `SUMMARY` numbers, which is a random
projection that keeps squared lengths in expectation; a small `phi` is read as it is. The summary
is then shrunk into the unit ball.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

SUMMARY = 256
"""The most numbers that the perceptron reads."""

_WIDTH = 16


class PenaltyWeight(nn.Module):
    """0 while the training settles, then `fixed`, or learned where that is None.

    Learned, it climbs by steps of length `1 / k^power`, k counting them: the schedule with a proof
    of convergence (OOD-TV-IRM, section 4). As `power` is above 1 the climb is bounded, and `cap`
    bounds the weight itself: nothing else would, for the penalty is never negative.

    Args:
        anneal_steps: steps of the training before the penalty counts.
        seed: of the signs and of the perceptron's first weights.
    """

    steps: Tensor
    climbed: Tensor

    def __init__(
        self, *, fixed: float | None, cap: float, power: float, anneal_steps: int, seed: int
    ) -> None:
        super().__init__()
        self._fixed = fixed
        self._cap = cap
        self._power = power
        self._anneal_steps = anneal_steps
        self._seed = seed
        self._phi: tuple[Tensor, ...] = ()
        self.delta: nn.Sequential | None = None
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("climbed", torch.zeros((), dtype=torch.int64))

    @property
    def is_active(self) -> bool:
        """Whether the penalty counts yet."""
        return int(self.steps) >= self._anneal_steps

    def attach(self, parameters: Sequence[Tensor]) -> None:
        """Name `phi`, and make the perceptron for it; torch's own random state stays as it is."""
        if self._fixed is not None:
            return
        self._phi = tuple(parameters)
        total = sum(p.numel() for p in self._phi)
        size, device = min(total, SUMMARY), self._phi[0].device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            signs = torch.randint(0, 2, (total,)) * 2 - 1
            layers = nn.Linear(size, _WIDTH), nn.Linear(_WIDTH, 1)
            for layer in layers:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self._signs = signs.float().to(device)
        self._size = size
        # It learns by `after_step` alone: what trains `phi` must leave no gradient here.
        delta = nn.Sequential(layers[0], nn.ReLU(), layers[1])
        self.delta = delta.to(device).requires_grad_(False)

    def summary(self) -> Tensor:
        """What the perceptron reads of `phi`: `[at most SUMMARY]`, in the unit ball."""
        flat = torch.cat([p.reshape(-1).float() for p in self._phi])
        if len(flat) > self._size:
            signed = pad(flat * self._signs, (0, -len(flat) % self._size))
            flat = signed.reshape(-1, self._size).sum(0)
        return flat / (1 + flat.square().sum()).sqrt()

    def forward(self) -> Tensor:
        """The weight now, a scalar in 0 to `cap`; learned, its gradient reaches `phi`.

        Raises `RuntimeError` where it is learned and nothing was attached.
        """
        if not self.is_active:
            return torch.zeros(())
        if self._fixed is not None:
            return torch.tensor(self._fixed)
        if self.delta is None:
            raise RuntimeError("attach what is trained before the first loss")
        climbing: Tensor = self.delta(self.summary())
        return softplus(climbing[0]).clamp(max=self._cap)

    def after_step(self) -> None:
        """Count a step of the training, and climb if the penalty was part of it.

        The gradient of the whole objective in `delta` is the penalty times that of the weight. Its
        length is divided out, so the penalty need not be computed again for the new `phi`.
        """
        if self.delta is not None and self.is_active:
            self._climb(self.delta)
        self.steps += 1

    def _climb(self, delta: nn.Sequential) -> None:
        delta.requires_grad_(True)
        with torch.enable_grad():
            gradients = torch.autograd.grad(self(), list(delta.parameters()))
        delta.requires_grad_(False)
        length = float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())
        if length == 0.0:  # at the cap
            return
        self.climbed += 1
        rate = 1.0 / (int(self.climbed) ** self._power * length)
        for parameter, gradient in zip(delta.parameters(), gradients, strict=True):
            parameter.add_(gradient, alpha=rate)
