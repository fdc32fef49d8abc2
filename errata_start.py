"""What the `errata` command starts: it imports our packages from where this file lies.

Their names are common ones, and a folder on `PYTHONPATH` that holds another `app` must not win.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_OURS = frozenset({"app", "editing_core", "migrations"})
_HERE = str(Path(__file__).resolve().parent)


class _OursFirst(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Ours lie beside this file; what is inside them, their own paths find."""
        return PathFinder.find_spec(fullname, [_HERE], target) if fullname in _OURS else None


def main() -> None:
    """The command line."""
    sys.meta_path.insert(0, _OursFirst())
    from app.cli import main as command

    command()
