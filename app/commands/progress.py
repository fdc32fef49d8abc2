"""Progress on the terminal, for commands that take minutes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from editing_core.training.trainer import Report
    from editing_core.types import Notify

T = TypeVar("T")


def counted(things: Iterable[T], what: str, *, total: int | None) -> Iterator[T]:
    """The things, with a bar on stderr while they are gone through; gone afterwards."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        yield from shown.track(things, total=total)


@contextmanager
def bars(*, shown: bool = True) -> Iterator[tuple[Notify, Report]]:
    """On stderr, one bar for each thing that is notified of and one for a training's steps.

    They are gone when the block is left; with `shown` false there are none.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        tasks: dict[str, int] = {}

        def notify(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

        def report(share: float, step: int, figures: Mapping[str, float]) -> None:
            notify("training", round(1000 * share), 1000)
            told = "  ".join(f"{name} {figure:.3f}" for name, figure in figures.items())
            progress.console.print(f"step {step:6d}  {told}")

        yield notify, report
