"""Memory of large pictures and bodies goes back to the system, and is not kept for the next."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import pathlib, sys
from app.memory import give_back_freed_memory

def resident_mib():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

if sys.argv[1] == "given back":
    give_back_freed_memory()
before = resident_mib()
for size in (5, 10, 20, 30):  # each that is freed makes the C library keep larger ones
    b"x" * (size * 2**20)
large, small = [], []
for _ in range(12):
    large.append(b"x" * (20 * 2**20))
    small.append(b"x" * 100_000)  # lies between them, and stays
large.clear()
print(resident_mib() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_large_blocks_go_back_to_the_system_when_they_are_freed() -> None:
    def left_mib(how: str) -> float:
        command = [sys.executable, "-c", PROGRAM, how]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert left_mib("kept") > 100, "there is nothing to mend any more"
    assert left_mib("given back") < 20


FREE_BETWEEN = """
import pathlib
from app.memory import trim

def resident_mib():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

blocks = [bytes(100_000) for _ in range(2000)]
last = bytes(100_000)  # lies behind them, and stays
blocks.clear()
before = resident_mib()
trim()
print(before - resident_mib())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a call of glibc")
def test_what_lies_free_between_small_blocks_is_given_back() -> None:
    command = [sys.executable, "-c", FREE_BETWEEN]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert float(told) > 100
