"""What every result says beside its figures: when, where, on which commit, in which versions."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def write(name: str, title: str, sections: Sequence[tuple[str, str]]) -> Path:
    """Write `results/<date>-<name>.md` and return its path."""
    today = datetime.now(UTC).date().isoformat()
    facts = [
        ["date", today],
        ["machine", machine()],
        ["commit", commit()],
        ["versions", versions()],
    ]
    parts = [f"# {title}", table(["", ""], facts)]
    parts += [f"## {heading}\n\n{body}" for heading, body in sections]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{today}-{name}.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def machine() -> str:
    """Processor, cores, and how busy the machine was when the measurement ended."""
    cpuinfo = Path("/proc/cpuinfo")
    found = None
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text("utf-8"), re.MULTILINE)
    processor = found[1] if found else platform.processor() or platform.machine()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}{load}"


def commit() -> str:
    """The commit checked out, and whether the tree differs from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "not a git checkout"


def versions() -> str:
    """Python and the packages that speed depends on."""
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "transformers", "faiss-cpu")
    )
    return f"Python {platform.python_version()}, {packages}"
