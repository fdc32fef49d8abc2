"""A model of LLaVA-1.5-7B's shape: what first start, edits and edited answers take on a GPU.

    python -m benchmarks.large_model [--shape llava-1.5-7b|tiny] [--device cuda] [--dtype bf16]
                                     [--edits 10] [--out FILE]

Weights are random and drawn on the device, so nothing is fetched and nothing can be said of what
the model answers. `fitted` and the router are measured as at any first start, LiveEdit's generators
are untrained. Writes results/large-model.md, and JSON beside it; the tiny shape is printed only,
unless a file is named.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks import large_model_page as page
from benchmarks.device_meter import stage, synchronise
from benchmarks.large_model_answers import ASKED, answer, entry_of, sides_of
from benchmarks.large_model_http import serve
from benchmarks.large_model_page import EDITORS, Cells, Figures
from benchmarks.random_llava import SHAPES, Shape, build
from benchmarks.report import RESULTS
from benchmarks.serving_ratios import remember
from editing_core.config import Placement
from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.editors.base import Editor
from editing_core.editors.liveedit import LiveEdit, LiveEditConfig
from editing_core.evaluation.machine import facts
from editing_core.experts.memory import MemoryEntry
from editing_core.first_start.fitted import measure_fitted
from editing_core.first_start.material import Material
from editing_core.first_start.router import measure_router
from editing_core.heraldry.sample import draw_sample
from editing_core.types import EditRequest, Sampling

LARGE = "llava-1.5-7b"
PICTURES = 2
"""The rows of a batch show them in turn."""


def make(shape: Shape, placement: Placement, found: dict[str, Cells]) -> EditableModel:
    """The model with its router and editors; how long each took goes into `found`."""
    device = placement.device
    with stage(device) as found[page.BUILDING]:
        backbone = build(shape, placement)
    # Pictures and questions are drawn on the CPU, within the first stage that asks for them.
    material = Material(backbone, subjects=shape.subjects, rows=shape.rows)
    with stage(device) as found[page.ROUTER]:
        router = measure_router(material)
    with stage(device) as found[page.FITTED]:
        fitted = measure_fitted(material)
    with stage(device) as found[page.GENERATORS], device:
        hidden, layer = backbone.hidden_size, material.edit_layer
        generated = [
            LiveEdit(config, backbone_fingerprint=backbone.fingerprint)
            for config in (
                LiveEditConfig(hidden, layer),
                LiveEditConfig(hidden, layer, form="paper", width=hidden // 4),
            )
        ]
        for editor in generated:
            editor.module.requires_grad_(False).eval()
    return EditableModel(backbone, router, {e.name: e for e in (fitted, *generated)})


def correction(seed: int) -> EditRequest:
    """A wrong answer of the right kind about an unseen emblem, to another question than `ASKED`."""
    sample = draw_sample(seed)
    questions = [question for question in sample.questions if ASKED not in question.wordings]
    question = questions[seed % len(questions)]
    return EditRequest(sample.picture.image, question.wordings[0], question.alternatives[0])


def make_edits(
    model: EditableModel, editor: str, requests: Sequence[EditRequest]
) -> tuple[list[MemoryEntry], Cells]:
    """Edits made one after another, the first of which warms up and is left out."""
    device = model.backbone.device
    entries, seconds, steps = [], [], []
    with stage(device) as told:
        for number, request in enumerate(requests):
            taken = [0]
            synchronise(device)
            began = time.perf_counter()
            artifact = model.encode(request, editor=editor, on_progress=_counting(taken))
            synchronise(device)
            if number:
                seconds.append(time.perf_counter() - began)
                steps.append(max(taken))
                entries.append(entry_of(f"{editor} {number}", artifact, request))
    cells: Cells = {
        page.MEDIAN: statistics.median(seconds),
        page.WORST: max(seconds),
        page.STEPS: "none",
        page.HOLDS: "untrained",
        page.PEAK: told[page.PEAK],
    }
    if type(model.editors[editor]).fit is not Editor.fit:
        cells[page.STEPS] = statistics.median(steps)
        pairs = zip(entries, requests[1:], strict=True)
        right = sum(_answers(model, entry, request) for entry, request in pairs)
        cells[page.HOLDS] = f"{right} of {len(entries)}"
    return entries, cells


def measure(shape: Shape, name: str, placement: Placement, edits: int) -> tuple[Figures, str]:
    """Every figure of the page, and how many parameters the model has."""
    stages: dict[str, Cells] = {}
    figures: Figures = {page.STAGES: stages, page.EDITS: {}}
    model = make(shape, placement, stages)
    entries: list[MemoryEntry] = []
    for number, editor in enumerate(EDITORS):
        # Pictures of their own, so that none finds another's features ready.
        first = 100_000 + 1_000 * number
        requests = [correction(seed) for seed in range(first, first + edits + 1)]
        made, figures[page.EDITS][editor] = make_edits(model, editor, requests)
        entries += made
    sides = sides_of(model, entries, new_tokens=shape.new_tokens)
    with stage(placement.device) as stages[page.ANSWERING]:
        figures[page.ANSWERS] = answer(model, sides, shape.rounds)
    with tempfile.TemporaryDirectory() as folder:
        figures[page.HTTP] = serve(model, name, Path(folder), new_tokens=shape.new_tokens)
    return figures, f"{model.backbone.num_parameters:,}"


def _counting(taken: list[int]) -> Callable[[int, int, float], None]:
    return lambda done, most, loss: taken.append(done)


def _answers(model: EditableModel, entry: MemoryEntry, request: EditRequest) -> bool:
    """Whether the target is what greedy decoding says with this edit alone in force."""
    wanted = tuple(model.backbone.encode_target(request.target))
    sampling = Sampling(max_new_tokens=len(wanted))
    row = GenerationRow(request.prompt, request.image, sampling, remember(model, [entry]))
    return model.generate([row])[0].token_ids == wanted


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default=LARGE)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--edits", type=int, default=10, help="timed edits of each editor")
    parser.add_argument("--out", type=Path, help="the page to write; JSON goes beside it")
    given = parser.parse_args(arguments)
    if given.edits < 1:
        parser.error("--edits must be at least 1")
    try:
        placement = Placement.resolve(given.device, given.dtype)
    except (ValueError, RuntimeError) as error:
        parser.error(f"{error}; --shape tiny --device cpu shows that the script runs")

    figures, size = measure(SHAPES[given.shape], given.shape, placement, given.edits)
    on_gpu = placement.device.type == "cuda"
    device = torch.cuda.get_device_name(placement.device) if on_gpu else placement.device.type
    told = {**facts(), "shape": given.shape, "parameters": size, "device": device}
    told |= {"dtype": given.dtype, "edits timed": str(given.edits)}
    sys.stdout.write(page.page(figures, told))
    out = given.out or (RESULTS / "large-model.md" if given.shape == LARGE else None)
    if out is not None:
        page.write(out, figures, told)
        sys.stdout.write(f"\nWritten to {out}\n")


if __name__ == "__main__":
    main()
