"""`errata calibrate`: set the router's thresholds anew, and show what they were and are.

Keys stay what they are, so no edit becomes stale; the server takes the thresholds up when it
starts. They are written beside what else was measured of the backbone, in the data directory.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.progress import bars
from app.errors import StartupError
from app.locking import InstanceLock
from app.settings import Settings
from editing_core.errors import EditingError
from editing_core.questions.preference import Preference

if TYPE_CHECKING:
    from editing_core.questions.encoder import QuestionEncoder
    from editing_core.routing.base import RouterBase

app = typer.Typer(add_completion=False)


@app.command()
def calibrate(
    model: Annotated[str | None, typer.Option(help="heraldry, a hub id, or a folder.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="The server's. [./data]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    quantization: Annotated[str | None, typer.Option(help="none, int8 or int4.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a hub id: branch, tag, commit.")] = None,
    clip: Annotated[Path | None, typer.Option(help="CLIPModel's folder for image keys.")] = None,
    trust_remote_code: Annotated[
        bool | None, typer.Option("--trust-remote-code", help="As for errata serve.")
    ] = None,
    question_encoder: Annotated[
        str | None, typer.Option(help="What compares questions: shipped, none, or a folder.")
    ] = None,
    eyes: Annotated[
        str | None, typer.Option(help="What compares pictures: shipped, none, or a folder.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of the model.")] = None,
    prefer: Annotated[
        Preference | None,
        typer.Option(help="precision, balanced or recall: see the table of what each costs."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print only, also while a server runs.")
    ] = False,
) -> None:
    """Calibrate the router on drawn pictures and shipped questions; takes a minute or two.

    --prefer chooses how sure an edit must be that a question means it. Every option but --prefer
    and --dry-run is also ERRATA_... and errata.toml, as for errata serve.

    Example: errata calibrate --prefer precision --dry-run
    """
    given = {n: value for n, value in locals().items() if n not in ("dry_run", "prefer")}
    try:
        _calibrate(Settings.load(**given), dry_run=dry_run, prefer=prefer)
    except (StartupError, EditingError, OSError, LookupError, ValueError) as error:
        hint = getattr(error, "hint", "")
        typer.echo(f"errata: cannot calibrate: {error}{' ' if hint else ''}{hint}", err=True)
        raise typer.Exit(1) from error


def _calibrate(settings: Settings, *, dry_run: bool, prefer: Preference | None) -> None:
    with ExitStack() as stack:
        parts = settings.parts_dir
        if dry_run:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            parts = scratch / parts.name
            if settings.parts_dir.is_dir():
                shutil.copytree(settings.parts_dir, parts)
        else:
            stack.enter_context(InstanceLock.of_data_dir(settings.data_dir))
        # Late: a data directory that is in use is told at once.
        from app.device.loading import load_model
        from editing_core.first_start.recalibrate import recalibrate
        from editing_core.parts import save_calibration

        with bars() as (notify, _):
            loaded = load_model(settings, parts=parts, notify=notify)
            before = loaded.router
            after = recalibrate(before, loaded.backbone, notify=notify)
            if prefer is not None:
                after = after.with_thresholds(prefer=prefer)
        _show(before, after)
        if loaded.questions is not None:
            _show_points(loaded.questions, after.thresholds.prefer)
        if dry_run:
            typer.echo("dry run: nothing was written")
        else:
            typer.echo(f"wrote {save_calibration(after, parts, loaded.backbone)}")


def _show(before: RouterBase, after: RouterBase) -> None:
    """A table of thresholds and figures, those that either has."""
    typer.echo(f"router {after.fingerprint} ({after.kind}, keys by {after.image_key_model})")
    typer.echo(f"{'':34}{'before':>12}{'after':>12}")
    then, now = asdict(before.thresholds), asdict(after.thresholds)
    for old, new in ((then, now), (before.figures, after.figures)):
        for name in dict.fromkeys((*old, *new)):
            typer.echo(f"{name:34}{_cell(old, name):>12}{_cell(new, name):>12}")


def _show_points(encoder: QuestionEncoder, chosen: str) -> None:
    """What each preference costs, measured on topics that the encoder was not trained on."""
    typer.echo(f"\nquestion encoder {encoder.fingerprint}")
    columns = ("hit", "confusables that fire", "another edit answers")
    typer.echo(f"{'prefer':34}{'rho':>8}" + "".join(f"{name:>24}" for name in columns))
    for name, rho in encoder.line.rho.items():
        mark = " (chosen)" if name == chosen else ""
        figures = [encoder.figures.get(f"{name}: {column}") for column in columns]
        cells = "".join(f"{'' if f is None else f'{100 * f:.1f} %':>24}" for f in figures)
        typer.echo(f"{name + mark:34}{rho:>8.3f}{cells}")


def _cell(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name, "")
    return f"{value:.6g}" if isinstance(value, float) else str(value)
