"""A whole benchmark run: what is asked for, which process measures whom, and how it goes on.

The unedited model is measured first, here; then each contender under each seed by one process, into
a file of its own. So two cores measure two at a time, and a killed run loses one batch of answers.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.context import SpawnContext
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import torch

from editing_core.editable_model import EditableModel
from editing_core.evaluation import lineup
from editing_core.evaluation.bench import Cases, Measurement, Progress, Suite
from editing_core.evaluation.contender import Contender
from editing_core.evaluation.contenders import EditsOff, load_trained
from editing_core.evaluation.edit_cases import HeraldryCases
from editing_core.evaluation.groups import SETS, GroupCases
from editing_core.evaluation.probes import EditCase
from editing_core.evaluation.run_log import RunLog, open_run, read_records, records_of
from editing_core.registry import BASELINES

MAIN_SUITE = "edits"
OVERALL = "contenders x seeds"
"""What progress calls the whole run."""


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What is asked for. Picklable, so that another process can take part in it.

    `also` are names among `editors` that stand for an editor trained into a folder.
    """

    editors: tuple[str, ...]
    counts: tuple[int, ...] = (1, 10, 100, 1000)
    probed: int = 100
    seeds: int = 3
    baseline_seeds: int = 1
    groups: int = 0
    dataset: str = "heraldry"
    path: str | None = None
    model: str | None = None
    edits_off: bool = False
    verify_every: int = 1
    also: tuple[tuple[str, str], ...] = ()

    def seeds_of(self, name: str) -> int:
        """How many seeds a contender is measured under; baselines may have fewer."""
        return min(self.seeds, self.baseline_seeds) if name in BASELINES else self.seeds

    def suites(self) -> list[Suite]:
        """The edits of the dataset, or with `groups` the sets of edits that meet."""
        if self.groups:
            return [
                Suite(name, _grouped(name, self.groups), (size * self.groups,), size * self.groups)
                for name, (size, _) in SETS.items()
            ]
        return [Suite(MAIN_SUITE, self._cases(), self.counts, self.probed)]

    def _cases(self) -> Callable[[int], Cases]:
        if self.dataset == "heraldry":
            return lambda seed: HeraldryCases(max(self.counts), seed=seed)
        # Imported here: published data is not needed for the embedded world.
        from editing_core.evaluation.datasets.base import load

        opened = load(self.dataset, self.path or ".", missing_images="skip")
        return lambda seed: Shuffled(opened, seed)


class Shuffled:
    """A dataset's cases in the order of a seed; seed 0 keeps the file's."""

    def __init__(self, cases: Sequence[EditCase], seed: int) -> None:
        self._cases = cases
        order = np.random.default_rng([seed, 43]).permutation(len(cases))
        self._order = [int(i) for i in order] if seed else list(range(len(cases)))

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> EditCase:
        return self._cases[self._order[index]]


def run_bench(
    plan: BenchPlan, folder: Path, *, resume: bool, processes: int, progress: Progress
) -> None:
    """Measure everything into `folder`. Raises what a contender raises, and `RunRefused`."""
    model = load_model(plan)
    open_run(folder, settings_of(plan, model), resume=resume)
    suites = plan.suites()
    with RunLog(records_of(folder, lineup.UNEDITED)) as log:
        unedited = lineup.contender(lineup.UNEDITED, model)
        for suite in suites:
            for seed in range(plan.seeds):
                Measurement(suite, seed, log.records).ask_unedited(unedited, log, progress)
    names = [name for name in dict.fromkeys(plan.editors) if name != lineup.UNEDITED]
    tasks = [(name, s) for s in range(plan.seeds) for name in names if s < plan.seeds_of(name)]
    if min(processes, len(tasks)) > 1:
        _spread(plan, tasks, folder, processes, progress)
        return
    for number, (name, seed) in enumerate(tasks):
        _measure(plan, name, seed, model, folder, progress)
        progress(OVERALL, number + 1, len(tasks))


def load_model(plan: BenchPlan) -> EditableModel:
    """The model under test, with the editors that its contenders need."""
    return EditableModel.load(plan.model, editors=lineup.editors_for(plan.editors))


def settings_of(plan: BenchPlan, model: EditableModel) -> dict[str, Any]:
    """What must be equal for a run to be resumed; contenders and seeds may be added."""
    asked = asdict(plan)
    del asked["editors"], asked["baseline_seeds"]
    weights = {"backbone": model.backbone_fingerprint, "router": model.router_fingerprint}
    also = {name: _trained(Path(folder)) for name, folder in plan.also}
    thresholds = asdict(model.router.thresholds)
    return {**asked, "also": also, "weights": weights, "thresholds": thresholds}


def _trained(folder: Path) -> dict[str, str]:
    name, editor = load_trained(folder)
    return {"folder": str(folder), "editor": name, "fingerprint": editor.fingerprint}


def _measure(
    plan: BenchPlan, name: str, seed: int, model: EditableModel, folder: Path, progress: Progress
) -> None:
    unedited = read_records(records_of(folder, lineup.UNEDITED))
    made: Contender = lineup.contender(
        name, model, seed=seed, verify_every=plan.verify_every, also=dict(plan.also)
    )
    contender = EditsOff(made) if plan.edits_off else made
    with RunLog(records_of(folder, f"{name}.{seed}")) as log:
        for suite in plan.suites():
            Measurement(suite, seed, unedited).measure(contender, log, progress)


def _grouped(name: str, groups: int) -> Callable[[int], Cases]:
    return lambda seed: GroupCases(name, groups, seed=seed)


# --- several processes ---------------------------------------------------------------------------


def _spread(
    plan: BenchPlan,
    tasks: Sequence[tuple[str, int]],
    folder: Path,
    processes: int,
    progress: Progress,
) -> None:
    context = multiprocessing.get_context("spawn")
    waiting: Any = context.Queue()
    messages: Any = context.Queue()
    count = min(processes, len(tasks))
    for task in (*tasks, *[None] * count):
        waiting.put(task)
    with _workers(context, count, (plan, folder, waiting, messages)) as workers:
        finished = 0
        while finished < len(tasks):
            try:
                message = messages.get(timeout=1.0)
            except Empty:
                if any(worker.exitcode not in (None, 0) for worker in workers):
                    raise RuntimeError("a measuring process died; go on with --resume") from None
                continue
            if message is None:
                finished += 1
                progress(OVERALL, finished, len(tasks))
            elif isinstance(message, BaseException):
                raise message
            else:
                progress(*message)


@contextmanager
def _workers(
    context: SpawnContext, count: int, arguments: tuple[Any, ...]
) -> Iterator[list[multiprocessing.process.BaseProcess]]:
    workers: list[multiprocessing.process.BaseProcess] = [
        context.Process(target=_work, args=arguments, daemon=True) for _ in range(count)
    ]
    for worker in workers:
        worker.start()
    try:
        yield workers
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _work(plan: BenchPlan, folder: Path, waiting: Any, messages: Any) -> None:
    """One process: measure whatever is next until there is nothing; None tells of each."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def tell(*told: Any) -> None:
        # A killed parent cannot end its processes; one that went on would write beside a new run.
        if parent is not None and not parent.is_alive():
            raise SystemExit(1)
        messages.put(told)

    try:
        model = load_model(plan)
        while (task := waiting.get()) is not None:
            name, seed = task
            _measure(plan, name, seed, model, folder, tell)
            messages.put(None)
    except Exception as error:
        # Told to the parent, which raises it; a traceback of its own would tear the display.
        messages.put(error)
        raise
