"""A page as a program: its blocks of code, and what it says each command prints."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_PRINTED = re.compile(r"^ *print\(.*\)\s+# (?P<printed>.*\S)$", re.MULTILINE)
_EXPECTATION = re.compile(r"^(?P<command>.*\S)\s+# (?P<printed>.*\S)$")
_END = "--- end of command"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a shell block; `printed` is what the line's comment promises, if it has one."""

    command: str
    printed: str | None


@dataclass(frozen=True, slots=True)
class Block:
    """What stands between two fences; `language` is the word behind the first."""

    language: str
    body: str

    @property
    def steps(self) -> list[Step]:
        """Of a block of the shell: its lines, each a command of its own."""
        return [_step(line) for line in self.body.splitlines() if line.strip()]

    @property
    def prints(self) -> list[str]:
        """Of a block of Python: what the comments behind its `print` calls promise, in order."""
        return _PRINTED.findall(self.body)


def blocks(markdown: str, *languages: str) -> Iterator[Block]:
    """The blocks of a page in these languages, in order."""
    for match in _BLOCK.finditer(markdown):
        if match["language"] in languages:
            yield Block(match["language"], match["body"])


def shell_blocks(markdown: str) -> list[list[Step]]:
    """The steps of every ```sh block of a page, in order."""
    return [block.steps for block in blocks(markdown, "sh")]


def _step(line: str) -> Step:
    match = _EXPECTATION.match(line)
    return Step(match["command"], match["printed"]) if match else Step(line, None)


def installed_client(folder: Path) -> str:
    """A path for `PYTHONPATH` that holds `errata` as an installation has it, and nothing else."""
    path = folder / "installed"
    path.mkdir()
    (path / "errata").symlink_to(Path(__file__).resolve().parents[2] / "app" / "errata")
    return str(path)


class Shell:
    """One bash that keeps its functions and variables from step to step, as a terminal does.

    What goes to stderr is part of what is printed, or is kept in the file `errors`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environment: Mapping[str, str] = os.environ,
        errors: Path | None = None,
        deadline_s: float = 120.0,
    ) -> None:
        self._errors = errors
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
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
        """What `command` prints, without the last line break. It must end with status 0."""
        redirected = "" if self._errors is None else f" 2>>'{self._errors}'"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(
            f"{{ {command}\n}}{redirected}\n_status=$?; echo; echo '{_END}' $_status\n"
        )
        self._process.stdin.flush()
        lines: list[str] = []
        for line in self._process.stdout:
            if line.startswith(_END):
                assert line.split()[-1] == "0", (
                    f"{command!r} failed: {''.join(lines)}{self._said()}"
                )
                return "".join(lines).rstrip("\n")
            lines.append(line)
        raise AssertionError(f"the shell ended during {command!r}: {''.join(lines)}")

    def _said(self) -> str:
        return "" if self._errors is None else self._errors.read_text("utf-8")
