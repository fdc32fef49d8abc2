"""What a visual expert weighs, and what is lost by keeping less of it.

    python -m benchmarks.visual_expert_size [--edits 100] [--model FOLDER]

The same edits one by one, each alone in force and unverified, with all rows of their picture kept
in float32, rounded to float16, and pruned to the rows that the influence mapper holds to matter
most. Bytes are those of the stored artifact, routing keys included, in the type of its rows.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import torch
from rich.progress import track
from torch import Tensor

from benchmarks.report import table, write
from editing_core.editable_model import EditableModel
from editing_core.editors.base import Seen
from editing_core.editors.visedit import VisEdit
from editing_core.evaluation.edit_cases import EditCase, edit_cases
from editing_core.evaluation.probes import GENERALITY, is_same
from editing_core.experts.codec import encode_artifact
from editing_core.experts.memory import MemoryEntry
from editing_core.generation import GenerationRow
from editing_core.states import EditStates

PATCHES = (64, 32, 16, 8, 4, 0)
IN_THIS_WORLD = "alternative"
HEADER = ["rows of its picture", "type", "bytes", *GENERALITY, "both, answers of this world"]


class Keeping(VisEdit):
    """Remembers the numbers of its last expert as they were before they were rounded."""

    whole: Mapping[str, Tensor]

    def encode(
        self, states: EditStates, seen: Sequence[Seen] = ()
    ) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
        """See `Editor.encode`."""
        del seen
        expert = self.module.expert(states, patches=self.config.patches)
        self.whole = {"source": expert.source, "anchor": expert.anchor}
        return expert.payload(), expert.metadata()


def variant(model: EditableModel, patches: int) -> tuple[EditableModel, Keeping]:
    """The model with an editor that keeps so many rows of an edit's picture."""
    editor = model.editors["visedit"]
    assert isinstance(editor, VisEdit)
    config = replace(editor.config, patches=patches)
    keeping = Keeping(config, backbone_fingerprint=editor.backbone_fingerprint)
    keeping.module = editor.module
    return EditableModel(model.backbone, model.router, {"visedit": keeping}), keeping


@torch.no_grad()
def measure(
    model: EditableModel, cases: Sequence[EditCase], patches: int, *, rounded: bool
) -> list[str]:
    """One line of the table."""
    made, editor = variant(model, patches)
    right: dict[str, list[float]] = defaultdict(list)
    sizes = []
    kind = "float16" if rounded else "float32"
    for case in track(cases, description=f"{patches} rows, {kind}"):
        artifact = made.encode(case.request, editor="visedit")
        size = len(encode_artifact(artifact))
        if not rounded:
            size += sum(2 * tensor.numel() for tensor in artifact.payload.values())
            artifact = replace(artifact, payload=editor.whole)
        sizes.append(size)
        entry = MemoryEntry("edit", artifact, "sha256:edit", case.prompt)
        snapshot = made.empty_snapshot().evolve(1, activate=[entry])
        probes = [probe for probe in case.probes if probe.kind in GENERALITY]
        rows = [GenerationRow(p.prompt, p.image, snapshot=snapshot) for p in probes]
        for probe, result in zip(probes, made.generate(rows), strict=True):
            holds = result.finish_reason == "stop" and is_same(result.text, case.target)
            right[probe.kind].append(float(holds))
            if case.target_group == IN_THIS_WORLD and probe.kind == GENERALITY[-1]:
                right[IN_THIS_WORLD].append(float(holds))
    figures = [f"{fmean(right[name]):.3f}" for name in (*GENERALITY, IN_THIS_WORLD)]
    return [str(patches), kind, f"{fmean(sizes):,.0f}", *figures]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--model", help="a checkpoint folder (default: the embedded model)")
    parser.add_argument("--no-write", action="store_true", help="only print")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = EditableModel.load(given.model, editors=("visedit",))
    cases = list(edit_cases(given.edits))
    rows = [measure(model, cases, PATCHES[0], rounded=False)]
    rows += [measure(model, cases, patches, rounded=True) for patches in PATCHES]
    told = table(HEADER, rows)
    sys.stdout.write(f"{told}\n")
    if not given.no_write:
        section = (f"{given.edits} edits, each alone in force", told)
        sys.stdout.write(f"wrote {write('visual-expert-size', 'Visual experts', [section])}\n")


if __name__ == "__main__":
    main()
