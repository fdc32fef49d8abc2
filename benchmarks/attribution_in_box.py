"""Where the attribution looks, against where the thing asked about lies; and which layer it picks.

    python -m benchmarks.attribution_in_box [--questions 200] [--curve-questions 800]

1. One held-out question about a charge of each unseen emblem, in a held-out wording: how much of
   the influence lies inside the charge's box, and how much of the picture the box covers. Small
   boxes (at most 15 % of the picture) and larger ones apart, as a large box is easily hit.
2. The mean contribution of every module over held-out perception questions of all kinds, and the
   layer that the mean curve recommends.

Everything is counted, whether or not the model answers right.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from benchmarks.report import table, write
from editing_core.attribution.attribute import reached_blocks, read
from editing_core.attribution.contributions import recommended_layer
from editing_core.editable_model import EditableModel
from editing_core.heraldry.emblem import emblem_from_seed, stream
from editing_core.heraldry.questions import Question, questions_about
from editing_core.heraldry.views import View, view_of

SMALL = 0.15
MARK = 3.0
_FIRST_BOX_SEED, _FIRST_CURVE_SEED = 700_000, 720_000
_STREAM = 31
_RESAMPLES = 1000

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Hit:
    """One question's influence map against the box of what it asks about."""

    area: float
    """Share of the picture that the box covers."""
    mass: float
    """Share of the influence that lies inside it; a patch on its edge counts in part."""
    is_brightest: bool
    """Whether the patch of the greatest influence touches the box."""

    @property
    def ratio(self) -> float:
        return self.mass / self.area


def hit_of(influence: NDArray[np.float32], box: Box, size: int) -> Hit:
    """`influence` `[rows, columns]` over a picture of `size` by `size` pixels, and a box in it."""
    left, top, right, bottom = box
    covered = np.outer(
        _overlap(influence.shape[0], size, top, bottom),
        _overlap(influence.shape[1], size, left, right),
    )
    return Hit(
        area=(right - left) * (bottom - top) / size**2,
        mass=float((influence * covered).sum() / influence.sum()),
        is_brightest=bool(covered.flat[influence.argmax()] > 0),
    )


def _overlap(cells: int, size: int, start: int, stop: int) -> NDArray[np.float64]:
    """How much of each of `cells` equal stretches of `size` pixels lies in `start..stop`."""
    edges = np.linspace(0, size, cells + 1)
    inside = np.minimum(edges[1:], stop) - np.maximum(edges[:-1], start)
    overlap: NDArray[np.float64] = np.clip(inside, 0, None) * cells / size
    return overlap


def asked(first_seed: int, *, of_charges: bool) -> Iterator[tuple[View, Question, str]]:
    """One perception question of each unseen emblem, with a held-out wording, for ever."""
    seed = first_seed
    while True:
        emblem, rng = emblem_from_seed(seed), stream("unseen", seed, 0, _STREAM)
        questions = [
            question
            for question in questions_about(emblem, rng)
            if question.group == "perception" and (question.regions or not of_charges)
        ]
        question = questions[int(rng.integers(len(questions)))]
        wordings = question.held_out_wordings
        yield (
            view_of(emblem, seed=seed, view=0),
            question,
            wordings[int(rng.integers(len(wordings)))],
        )
        seed += 1


def hits(model: EditableModel, count: int, progress: Progress) -> list[Hit]:
    """`count` questions whose box is small, and those with larger boxes met on the way."""
    bar = progress.add_task("boxes", total=count)
    blocks = reached_blocks(model)
    found: list[Hit] = []
    for view, question, prompt in asked(_FIRST_BOX_SEED, of_charges=True):
        box = view.box(question.regions)
        if box is None:
            continue
        influence = read(model.backbone, view.image, prompt).influence(blocks)
        found.append(hit_of(influence, box, view.image.shape[0]))
        progress.update(bar, completed=(small := sum(hit.area <= SMALL for hit in found)))
        if small >= count:
            break
    return found


def boxes_table(found: Sequence[Hit]) -> str:
    """Small boxes and larger ones."""
    rows = []
    for name, is_small in ((f"at most {SMALL:.0%}", True), (f"more than {SMALL:.0%}", False)):
        some = [hit for hit in found if (hit.area <= SMALL) is is_small]
        area, mass = (np.mean([getattr(hit, name) for hit in some]) for name in ("area", "mass"))
        ratios = np.array([hit.ratio for hit in some])
        rows.append(
            [
                name,
                str(len(some)),
                f"{area:.3f}",
                f"{mass:.3f}",
                f"**{mass / area:.2f}**",
                f"{ratios.mean():.2f}",
                f"{np.median(ratios):.2f}",
                f"{(ratios >= MARK).mean():.1%}",
                f"{np.mean([hit.is_brightest for hit in some]):.1%}",
            ]
        )
    header = [
        "box covers",
        "questions",
        "mean area",
        "mean mass inside",
        "mass / area",
        "mean of ratios",
        "median ratio",
        f"ratio at least {MARK:g}",
        "brightest patch in the box",
    ]
    return table(header, rows)


def curves(model: EditableModel, count: int, progress: Progress) -> NDArray[np.float64]:
    """Contributions of attention and MLP: `[count, layers, 2]`."""
    bar = progress.add_task("curve", total=count)
    found = []
    for _, (view, _, prompt) in zip(
        range(count), asked(_FIRST_CURVE_SEED, of_charges=False), strict=False
    ):
        layers = read(model.backbone, view.image, prompt).layers
        found.append([(layer.attention, layer.mlp) for layer in layers])
        progress.advance(bar)
    return np.array(found)


def curve_section(found: NDArray[np.float64], *, lowest: int) -> str:
    """The mean curve, and the layer it picks, with and without the router's bound."""
    mean, error = found.mean(axis=0), found.std(axis=0) / np.sqrt(len(found))
    rows = [
        [
            str(layer),
            *(f"{mean[layer, m]:.3f} ± {error[layer, m]:.3f}" for m in range(2)),
            "" if layer == 0 else f"{mean[layer, 0] - mean[layer - 1, 0]:+.3f}",
        ]
        for layer in range(found.shape[1])
    ]
    attention, rng = found[..., 0], np.random.default_rng(0)
    samples = [
        attention[rng.integers(len(found), size=len(found))].mean(axis=0) for _ in range(_RESAMPLES)
    ]
    free, bound = recommended_layer(mean[:, 0]), recommended_layer(mean[:, 0], lowest=lowest)
    agree = np.mean([recommended_layer(sample) == free for sample in samples])
    single = [recommended_layer(curve, lowest=lowest) for curve in attention]
    counts = ", ".join(f"layer {at}: {single.count(at)}" for at in sorted(set(single)))
    figures = table(["block", "attention", "MLP", "attention's step"], rows)
    return (
        f"{figures}\n\n± is the standard error.\n\n"
        f"Recommended by the mean curve: **layer {bound}** (among all layers: layer {free}, so in "
        f"{agree:.1%} of {_RESAMPLES:,} resamplings of the questions; the router's layer is "
        f"{lowest}). Recommended by each question's own curve: {counts}."
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=200, help="with small boxes")
    parser.add_argument("--curve-questions", type=int, default=800)
    parser.add_argument("--model", help="a checkpoint folder (default: the embedded model)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument("--no-write", action="store_true", help="only print")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = EditableModel.load(arguments.model)
    with Progress(transient=True) as progress:
        found = hits(model, arguments.questions, progress)
        curve = curves(model, arguments.curve_questions, progress)
    blocks = ", ".join(map(str, reached_blocks(model)))
    told = (
        f"Mean over the attention of blocks {blocks}; noise as `Perturbation` has it. "
        f"Mark: mass / area at least {MARK:g} for boxes of at most {SMALL:.0%}."
    )
    sections = [
        ("Influence inside the box of what is asked about", f"{boxes_table(found)}\n\n{told}"),
        (
            f"Contributions, mean over {len(curve)} perception questions of all kinds",
            curve_section(curve, lowest=model.router.layer),
        ),
    ]
    for heading, body in sections:
        print(f"{heading}\n\n{body}\n")
    if not arguments.no_write:
        print(f"written to {write('attribution-in-box', 'Attribution', sections)}")


if __name__ == "__main__":
    main()
