"""What a commit costs beside 10 edits and beside many: R8 without encoding and verification.

    python -m benchmarks.commits [--edits 10,1000,20000] [--commits 300] [--folder FOLDER]

All stores are open at once and take turns, a commit each, so that what else the machine does falls
on all of them. Milliseconds are those of a clock, and beside them what the process computed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from app.device.facts import ModelFacts
from app.history import Caller, History
from app.recovery import recover
from app.store.database import Database
from app.store.edit_log import EditLog
from app.store.job_log import JobLog
from benchmarks.many_edits import created, fill, one_artifact
from benchmarks.report import RESULTS, table, write
from editing_core.editable_model import EditableModel
from editing_core.evaluation.machine import facts
from editing_core.experts.codec import decode_artifact
from editing_core.experts.memory import MemoryEntry
from editing_core.types import EditArtifact


class Store:
    """One history, and the commits that it is given."""

    def __init__(self, model: EditableModel, file: Path, artifact: EditArtifact) -> None:
        self.database = Database.open(f"sqlite:///{file}")
        log, jobs = EditLog(self.database), JobLog(self.database)
        recovered = recover(
            log,
            jobs,
            ModelFacts.of(model),
            model.picture_key,
            database=self.database,
        )
        self.history = History(log, recovered)
        self.edits = len(self.history.snapshot)
        self.new = created(self.history.head, 10**6, artifact)
        self.clock_ms: list[float] = []
        self.computing_ms: list[float] = []

    async def commit(self) -> None:
        commit = next(self.new)
        record, artifact = commit.record, decode_artifact(commit.artifact)
        entry = MemoryEntry(record.id, artifact, record.image_digest, record.prompt)
        clock, computing = time.perf_counter(), time.process_time()
        async with self.history.lock:
            await self.history.commit(commit, caller=Caller("made-up"), brought=[entry])
        self.clock_ms.append((time.perf_counter() - clock) * 1e3)
        self.computing_ms.append((time.process_time() - computing) * 1e3)

    def row(self) -> dict[str, float]:
        late = sorted(self.clock_ms)[int(0.99 * len(self.clock_ms))]
        return {
            "edits": self.edits,
            "p50, ms": statistics.median(self.clock_ms),
            "p99, ms": late,
            "computing p50, ms": statistics.median(self.computing_ms),
        }


async def _take_turns(stores: list[Store], commits: int) -> None:
    for number in range(commits + 10):
        for store in stores:
            await store.commit()
            if number < 10:
                store.clock_ms.clear()
                store.computing_ms.clear()


def main() -> None:
    """Measure and print; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--edits", default="10,1000,20000")
    parser.add_argument("--commits", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="where stores lie, made if they are not there")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    model = EditableModel.load()
    artifact = one_artifact(model)
    stores = []
    for edits in map(int, options.edits.split(",")):
        file = folder / f"{edits}" / "errata.db"
        if not file.exists():
            file.parent.mkdir(parents=True)
            fill(file, edits, artifact)
        stores.append(Store(model, file, artifact))
    asyncio.run(_take_turns(stores, options.commits))
    rows = [store.row() for store in stores]
    cells = [[f"{value:.2f}" for value in row.values()] for row in rows]
    told = table(list(rows[0]), cells)
    ratio = rows[-1]["p50, ms"] / rows[0]["p50, ms"]
    computing = rows[-1]["computing p50, ms"] / rows[0]["computing p50, ms"]
    told += f"\n\nMost against fewest edits: {ratio:.2f} by the clock, {computing:.2f} computing."
    print(told)
    print(write("commits", "A commit beside many edits", [("Taking turns", told)]))
    kept = {"machine": facts(), "commits": options.commits, "rows": rows}
    path = RESULTS / f"{datetime.now(UTC).date().isoformat()}-commits.json"
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    for store in stores:
        store.database.close()


if __name__ == "__main__":
    main()
