"""One process or several: who draws which share of a step, and how gradients are averaged.

Several processes are Accelerate's (`accelerate launch`); it is imported when there are several, and
need not be installed for one. Each holds a copy of the frozen model, draws its own share of every
step, and after averaging makes the same step as the others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from editing_core.errors import TrainingError


class Processes(Protocol):
    """Who trains. `rank` counts from 0; the first one alone writes and reports."""

    @property
    def rank(self) -> int: ...

    @property
    def count(self) -> int: ...

    def average(self, parameters: Sequence[Tensor]) -> None:
        """Give every process the mean of all processes' gradients."""
        ...

    def wait(self) -> None:
        """Until all are here."""
        ...


class OneProcess:
    """Alone."""

    rank = 0
    count = 1

    def average(self, parameters: Sequence[Tensor]) -> None:
        """There is nobody to agree with."""

    def wait(self) -> None:
        """There is nobody to wait for."""


class SeveralProcesses:
    """Those that `accelerate launch` started. Raises `TrainingError` where it is not installed."""

    def __init__(self, *, cpu: bool = False) -> None:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise TrainingError(
                "several processes need Accelerate, which is not installed",
                hint="Install errata[train], or train in one process with --accumulate.",
            ) from error
        self._accelerator: Any = Accelerator(cpu=cpu)
        self.rank = int(self._accelerator.process_index)
        self.count = int(self._accelerator.num_processes)

    @property
    def device(self) -> torch.device:
        """This process's own."""
        device: torch.device = self._accelerator.device
        return device

    def average(self, parameters: Sequence[Tensor]) -> None:
        """See `Processes.average`. A parameter without gradient here counts as 0."""
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad = self._accelerator.reduce(parameter.grad, reduction="mean")

    def wait(self) -> None:
        """See `Processes.wait`."""
        self._accelerator.wait_for_everyone()


def are_several() -> bool:
    """Whether a launcher started more than this process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
