"""Choose the settings of the baselines, on emblems of the validation split.

    python -m benchmarks.tune_baselines [NAME ...] [--edits 24] [--model FOLDER]

Tries each baseline's grid, one setting after another, with all edits made in sequence
(`editing_core/evaluation/baseline_tuning.py`), and prints every trial, best first. What wins is
written by hand into the baseline's settings, so that a comparison never tunes in passing.
"""

from __future__ import annotations

import argparse
import sys

import torch
from rich.console import Console
from rich.progress import Progress

from benchmarks.report import table, write
from editing_core.editable_model import EditableModel
from editing_core.evaluation.baseline_tuning import (
    Trial,
    settings_text,
    trials_at_most,
    tune,
    validation_cases,
)
from editing_core.registry import BASELINES


def rows_of(trials: list[Trial]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of one baseline's table."""
    kinds = list(trials[0].rates)
    header = ["score", *kinds, "ms an edit", "settings"]
    rows = [
        [
            f"{trial.score:.3f}",
            *(f"{trial.rates[kind]:.2f}" for kind in kinds),
            f"{trial.edit_ms:.0f}",
            settings_text(trial.settings).replace("\n", "\\n"),
        ]
        for trial in trials
    ]
    return header, rows


def main() -> None:
    """Tune, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BASELINES))
    parser.add_argument("--edits", type=int, default=24, help="made one after another")
    parser.add_argument("--model", help="a checkpoint folder (default: the embedded model)")
    parser.add_argument("--no-write", action="store_true", help="only print")
    arguments = parser.parse_args()
    kinds = {name: BASELINES.resolve(name) for name in arguments.names or BASELINES}

    torch.set_num_threads(1)
    model = EditableModel.load(arguments.model)
    cases = list(validation_cases(arguments.edits))
    sections = []
    with Progress(console=Console(stderr=True)) as shown:
        for name, kind in kinds.items():
            bar = shown.add_task(name, total=trials_at_most(kind))

            def on_trial(trial: Trial) -> None:
                shown.console.log(f"{trial.score:.3f} {settings_text(trial.settings)}")
                shown.advance(bar)  # noqa: B023 - called before the loop goes on

            trials = tune(kind, model, cases, on_trial=on_trial)
            shown.update(bar, completed=trials_at_most(kind))
            sections.append((f"{name}, {len(cases)} edits", table(*rows_of(trials))))
    sys.stdout.write("\n\n".join(f"{heading}\n\n{body}" for heading, body in sections) + "\n")
    if not arguments.no_write:
        path = write("baseline-tuning", "Settings tried for the baselines", sections)
        sys.stdout.write(f"\nWritten to {path}\n")


if __name__ == "__main__":
    main()
