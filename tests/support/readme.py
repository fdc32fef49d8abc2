"""The README as a program: its shell blocks, and what it says each command prints."""

from __future__ import annotations

import re
import shlex
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_BLOCK = re.compile(r"^```sh\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_EXPECTATION = re.compile(r"^(?P<command>.*\S)\s+# (?P<printed>.*\S)$")
_END = "--- end of command"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a shell block; `printed` is what the line's comment promises, if it has one."""

    command: str
    printed: str | None


def shell_blocks(markdown: str) -> list[list[Step]]:
    """The steps of every ```sh block of a page, in order."""
    return [
        [_step(line) for line in match["body"].splitlines() if line.strip()]
        for match in _BLOCK.finditer(markdown)
    ]


def _step(line: str) -> Step:
    match = _EXPECTATION.match(line)
    return Step(match["command"], match["printed"]) if match else Step(line, None)


class Shell:
    """One bash that keeps its functions and variables from step to step, as a terminal does."""

    def __init__(self, folder: Path, *, deadline_s: float = 120.0) -> None:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # A command that hangs ends the shell, so that a test fails and does not wait for ever.
        self._watchdog = threading.Timer(deadline_s, self._process.kill)

    def __enter__(self) -> Self:
        self._watchdog.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watchdog.cancel()
        self._process.kill()
        self._process.communicate()

    def run(self, command: str) -> str:
        """What `command` prints, without the last line break."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\necho; echo {shlex.quote(_END)}\n")
        self._process.stdin.flush()
        lines: list[str] = []
        for line in self._process.stdout:
            if line.rstrip("\n") == _END:
                return "".join(lines).rstrip("\n")
            lines.append(line)
        raise AssertionError(f"the shell ended during {command!r}: {''.join(lines)}")
