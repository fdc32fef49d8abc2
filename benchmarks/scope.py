"""Where an edit belongs: does it answer its question in any words, and nothing else?

    python -m benchmarks.scope [--data PATH] [--wordings FILE] [--worlds emblems,...] [--limit N]

Worlds, each with all its edits in force:

    emblems    several edits an emblem; wordings by kind, confusables, other questions
    flags      the same on real flags (PATH/flags)
    near       flags of half the countries edited, the other half's flags asked, by their distance
    photos     photographs of products; other products asked the same question (PATH/grocery)
    emoji      pictograms; others asked the same question (PATH/emoji)
    topics     the question encoder alone, on the topics held out from its training: the curve of
               hits against false fires

FILE holds wordings that nobody who trained anything has read: see `benchmarks/wordings/README.md`.
Edits are made in this process by the very steps of the service; answers are free and greedy. The
unedited row says what the same probes give without edits. Without --data, only what needs none
runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from benchmarks.report import write
from benchmarks.scope_tables import render, summary
from benchmarks.scope_wordings import SHIPPED, WordingsError, read_wordings
from benchmarks.scope_worlds import WORLDS, Context
from editing_core.editable_model import EditableModel


def main(argv: Sequence[str] | None = None) -> int:
    """Run and report; the exit status: 2 when the data cannot be used."""
    options = _parser().parse_args(argv)
    console = Console()
    torch.set_num_threads(options.threads)
    chosen = [name for name in options.worlds.split(",") if name]
    unknown = [name for name in chosen if name not in WORLDS]
    if unknown:
        console.print(f"no such world: {', '.join(unknown)}; known: {', '.join(WORLDS)}")
        return 2
    try:
        wordings = read_wordings(options.wordings)
    except WordingsError as error:
        console.print(str(error))
        return 2
    needing = [name for name in chosen if WORLDS[name].needs_data and options.data is None]
    if needing:
        console.print(f"left out, for want of --data: {', '.join(needing)}")
    model = EditableModel.load(options.model, editors=[options.editor], parts=options.parts)
    sections = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name in chosen:
            if name in needing:
                continue
            context = Context(
                model, options.editor, options.data, wordings, options.limit, progress
            )
            tallies = WORLDS[name].run(context)
            sections.append((name, render(tallies)))
            console.print(f"\n{name}\n{sections[-1][1]}")
            console.print(summary(tallies))
    if options.limit is None and not needing and set(chosen) == set(WORLDS):
        console.print(f"wrote {write('scope', 'Where an edit belongs', sections)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with flags/, grocery/ and emoji/")
    parser.add_argument("--wordings", type=Path, default=SHIPPED, help="held-out wordings")
    parser.add_argument("--worlds", default=",".join(WORLDS), help="comma-separated")
    parser.add_argument("--limit", type=int, help="pictures a world, for a quick look")
    parser.add_argument("--model", default=None, help="folder or hub id; default: the embedded one")
    parser.add_argument("--parts", type=Path, help="folder for what is measured of other models")
    parser.add_argument("--editor", default="liveedit")
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    sys.exit(main())
