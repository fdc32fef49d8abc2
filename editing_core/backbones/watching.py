"""Looking into a pass: what a decoder's modules were given and gave out, and what if it were else.

    with watching(backbone.attentions) as calls:
        backbone.prefill(batch)
    calls[2].output                       # of block 2's attention
    calls[2].again(noisy_inputs)          # the same module, the same mask and positions

Hooks belong to the block they are set for and are gone when it ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_INPUTS = "hidden_states"
# What a module would write keys and values to; a second call must neither read nor write any.
_CACHES = ("past_key_values", "past_key_value", "layer_past", "cache_position")


@dataclass(frozen=True, slots=True, eq=False)
class ModuleCall:
    """One call of one module: `inputs` and `output` are `[batch, T, hidden]`, as it saw them."""

    module: nn.Module
    inputs: Tensor
    output: Tensor
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    @torch.no_grad()
    def again(self, inputs: Tensor) -> Tensor:
        """The module's output on other `inputs` `[copies, T, hidden]`, all else as it was.

        A row of them must be a whole sequence: with a cache, this was a call of prefill.
        """
        keywords = self.keywords | {_INPUTS: inputs}
        return _first(self.module(*self.arguments, **keywords))


@contextmanager
def watching(modules: Sequence[nn.Module]) -> Iterator[dict[int, ModuleCall]]:
    """The newest call of each module while the block runs, by its place in `modules`."""
    calls: dict[int, ModuleCall] = {}

    def hook(place: int) -> Any:
        def keep(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            keywords = dict(kwargs)
            inputs = args[0] if args else keywords.pop(_INPUTS)
            keywords |= dict.fromkeys(keywords.keys() & set(_CACHES))
            calls[place] = ModuleCall(module, inputs, _first(output), args[1:], keywords)

        return keep

    handles = [
        module.register_forward_hook(hook(place), with_kwargs=True)
        for place, module in enumerate(modules)
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _first(output: Any) -> Tensor:
    """A module's states, whether it returns a tensor or a tuple that starts with one."""
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states
