"""What a benchmark run writes while it runs: one JSON line per probed case, only ever appended.

A run that was killed is resumed by reading its lines back. A line cut short by the kill is dropped;
any other damage is an error, never a gap in a table.

    run.json               what was asked for; a resumed run must ask for the same, or for more
                           seeds and further trained editors (`also`)
    records/<name>.jsonl   one file per contender and seed (`liveedit.0`), and one for the unedited
                           model, so that several processes may write at once
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from editing_core.errors import EditingError

RUN_FILE, RECORDS = "run.json", "records"


class RunRefused(EditingError):
    """A folder of results cannot be used for this run."""

    code = "run_refused"
    default_hint = "Choose another folder with --out."


def open_run(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
    """Start a run in `folder`, or check that the one there asked for the same or for less.

    Less are fewer `seeds`, or fewer names in `also`; what a name in both stands for must be equal.
    Raises `RunRefused` when there is one and `resume` is false, or it asked for something else.
    """
    path = folder / RUN_FILE
    wanted = json.loads(json.dumps(settings))
    if not path.exists():
        (folder / RECORDS).mkdir(parents=True, exist_ok=True)
        _write_settings(path, wanted)
        return
    if not resume:
        raise RunRefused(
            f"{folder} already holds a run", hint="Go on with --resume, or choose another --out."
        )
    found = read_settings(folder)
    there, now = found.setdefault("also", {}), wanted.setdefault("also", {})
    wanted["also"] = there | now
    grows = {
        "seeds": wanted["seeds"] > found.get("seeds", 0),
        "also": wanted["also"] == now | there != there,
    }
    differing = [
        name
        for name in {**wanted, **found}
        if wanted.get(name) != found.get(name) and not grows.get(name, False)
    ]
    if differing:
        told = "; ".join(f"{n}: {found.get(n)!r} there, {wanted.get(n)!r} now" for n in differing)
        raise RunRefused(f"{folder} holds another run ({told})")
    if any(grows.values()):
        _write_settings(path, wanted)


def _write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n", "utf-8")
    part.replace(path)


def read_settings(folder: Path) -> dict[str, Any]:
    """What the run in `folder` asked for. Raises `RunRefused` when there is none."""
    try:
        found = json.loads((folder / RUN_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunRefused(f"{folder} holds no run: {error}") from error
    if not isinstance(found, dict):
        raise RunRefused(f"{folder / RUN_FILE} is not a run's settings")
    return found


def records_of(folder: Path, name: str) -> Path:
    """Where lines lie: `name` is `unedited`, or a contender and a seed."""
    return folder / RECORDS / f"{name}.jsonl"


class RunLog:
    """One file of lines: those that are there, and a way to add more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = _read(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a", encoding="utf-8")

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add lines; once this returns, a kill of the process leaves them there."""
        for record in records:
            self._stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            self.records.append(dict(record))
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()


def read_records(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file, without touching the file; none where there is no file."""
    return _parse(path, path.read_bytes())[0] if path.exists() else []


def _read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file about to be added to; what a kill cut short is cut off."""
    if not path.exists():
        return []
    data = path.read_bytes()
    records, whole = _parse(path, data)
    if whole < len(data):
        with path.open("r+b") as stream:
            stream.truncate(whole)
    return records


def _parse(path: Path, data: bytes) -> tuple[list[dict[str, Any]], int]:
    whole = data.rfind(b"\n") + 1
    records = []
    for number, line in enumerate(data[:whole].splitlines(), start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise RunRefused(
                f"{path}, line {number}, is damaged: {error}",
                hint="Remove that file to measure its contender again, then use --resume.",
            ) from error
    return records, whole
