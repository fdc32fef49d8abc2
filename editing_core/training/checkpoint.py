"""Checkpoints of a running training: atomic, complete, exact.

    <folder>/step-00001200/
        state.safetensors      modules, optimisers, random state
        MANIFEST.json          step, seconds, sha256 of the state; written last

A step folder is built under another name and renamed, so a kill at any moment leaves the old
checkpoint, the new one, or both. The newest whose manifest agrees with its state is resumed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from editing_core.errors import AnotherPlan

logger = logging.getLogger(__name__)

_KEEP = 2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come: steps done and seconds spent, added up over resumes."""

    step: int = 0
    seconds: float = 0.0


def save_checkpoint(
    folder: Path,
    progress: Progress,
    *,
    modules: Mapping[str, nn.Module],
    optimisers: Sequence[torch.optim.Optimizer],
    plan: Mapping[str, Any],
) -> Path:
    """Write the whole state of a run, each of `modules` by its name; the newest two are kept."""
    final = folder / f"step-{progress.step:08d}"
    part = folder / f"{final.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tensors = {
        f"{name}.{key}": value.detach().clone()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    for number, optimiser in enumerate(optimisers):
        for index, state in optimiser.state_dict()["state"].items():
            for name, value in state.items():
                key = f"optimiser.{number}.{index}.{name}"
                tensors[key] = torch.as_tensor(value).detach().clone()
    tensors["random"] = torch.get_rng_state()
    save_file(tensors, part / "state.safetensors")
    manifest = {
        "step": progress.step,
        "seconds": progress.seconds,
        "plan": dict(plan),
        "sha256": _sha256(part / "state.safetensors"),
    }
    (part / "MANIFEST.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    part.rename(final)
    for old in _steps(folder)[:-_KEEP]:
        shutil.rmtree(old)
    return final


def resume(
    folder: Path,
    *,
    modules: Mapping[str, nn.Module],
    optimisers: Sequence[torch.optim.Optimizer],
    plan: Mapping[str, Any],
) -> Progress:
    """Restore the newest sound checkpoint; without one, nothing changes and step 0 is returned.

    Raises:
        AnotherPlan: the checkpoint belongs to a run with another plan; the message says in what.
    """
    for path in reversed(_steps(folder)):
        manifest = _sound_manifest(path)
        if manifest is None:
            logger.warning("%s is damaged; an older checkpoint is tried", path)
            continue
        differences = _differences(manifest["plan"], plan)
        if differences:
            raise AnotherPlan(f"{path} belongs to another plan: {'; '.join(differences)}")
        tensors = load_file(path / "state.safetensors")
        for name, module in modules.items():
            module.load_state_dict(_below(tensors, f"{name}."))
        for number, optimiser in enumerate(optimisers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in _below(tensors, f"optimiser.{number}.").items():
                index, name = key.split(".", 1)
                state.setdefault(int(index), {})[name] = value
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": state, "param_groups": groups})
        torch.set_rng_state(tensors["random"])
        logger.info("resumed at step %d from %s", manifest["step"], path)
        return Progress(step=int(manifest["step"]), seconds=float(manifest["seconds"]))
    return Progress()


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], within: str = "") -> list[str]:
    """What two plans disagree about: `seed is 7 there and 8 here`."""
    found: list[str] = []
    for key in dict.fromkeys((*theirs, *ours)):
        there, here = theirs.get(key), ours.get(key)
        if isinstance(there, Mapping) and isinstance(here, Mapping):
            found += _differences(there, here, f"{within}{key}.")
        elif there != here:
            found.append(f"{within}{key} is {there} there and {here} here")
    return found


def _steps(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("step-????????") if p.is_dir())


def _sound_manifest(path: Path) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = json.loads((path / "MANIFEST.json").read_text("utf-8"))
        sound = manifest["sha256"] == _sha256(path / "state.safetensors")
    except (OSError, ValueError, KeyError) as error:
        logger.warning("%s cannot be read: %s", path, error)
        return None
    return manifest if sound else None


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
