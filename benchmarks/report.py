"""What every result says beside its figures: when, where, on which commit, in which versions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from editing_core.evaluation.machine import commit, facts, machine, versions
from editing_core.evaluation.tables import table

__all__ = ["RESULTS", "commit", "machine", "table", "versions", "write"]

RESULTS = Path(__file__).resolve().parent / "results"


def write(name: str, title: str, sections: Sequence[tuple[str, str]]) -> Path:
    """Write `results/<date>-<name>.md` and return its path."""
    today = datetime.now(UTC).date().isoformat()
    parts = [f"# {title}", table(["", ""], [[name, told] for name, told in facts().items()])]
    parts += [f"## {heading}\n\n{body}" for heading, body in sections]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{today}-{name}.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path
