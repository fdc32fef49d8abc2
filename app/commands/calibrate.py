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

if TYPE_CHECKING:
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
    threads: Annotated[int | None, typer.Option(help="CPU threads of the model.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print only, also while a server runs.")
    ] = False,
) -> None:
    """Calibrate the router on drawn pictures and shipped questions; takes a minute or two.

    Every option but --dry-run is also ERRATA_... and errata.toml, as for errata serve.
    """
    given = {name: value for name, value in locals().items() if name != "dry_run"}
    try:
        _calibrate(Settings.load(**given), dry_run=dry_run)
    except (StartupError, EditingError, OSError, LookupError, ValueError) as error:
        hint = getattr(error, "hint", "")
        typer.echo(f"errata: cannot calibrate: {error}{' ' if hint else ''}{hint}", err=True)
        raise typer.Exit(1) from error


def _calibrate(settings: Settings, *, dry_run: bool) -> None:
    with ExitStack() as stack:
        parts = settings.parts_dir
        if dry_run:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            parts = scratch / parts.name
            if settings.parts_dir.is_dir():
                shutil.copytree(settings.parts_dir, parts)
        else:
            stack.enter_context(InstanceLock(settings.data_dir))
        # Late: a data directory that is in use is told at once.
        from app.runtime import load_model
        from editing_core.first_start.recalibrate import recalibrate
        from editing_core.parts import save_calibration

        with bars() as (notify, _):
            loaded = load_model(settings, parts=parts, notify=notify)
            before = loaded.router
            after = recalibrate(before, loaded.backbone, notify=notify)
        _show(before, after)
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


def _cell(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name, "")
    return f"{value:.6g}" if isinstance(value, float) else str(value)
