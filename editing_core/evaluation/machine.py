"""When, where and in which versions something was measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def facts() -> dict[str, str]:
    """What a result says beside its figures."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "commit": commit(),
        "versions": versions(),
    }


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
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return "not a git checkout"
    return described.stdout.strip() or "not a git checkout"


def versions() -> str:
    """Python and the packages that speed depends on."""
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "transformers", "faiss-cpu")
    )
    return f"Python {platform.python_version()}, {packages}"
