"""Ask every line of a CSV file twice, with the edits and without, and show where they differ.

    python edited_against_base.py questions.csv

The columns are picture and question; paths are relative to the file. Questions are asked side by
side, which a server answers faster than one after the other.
"""

from __future__ import annotations

import asyncio
import csv
import sys
from pathlib import Path

from errata import Answer, AsyncClient

AT_ONCE = 8


async def both(errata: AsyncClient, picture: Path, question: str) -> tuple[Answer, Answer]:
    """The answers of the base model and of the edited one."""
    base = await errata.generate(question, picture, edits=False)
    return base, await errata.generate(question, picture)


async def ask_all(lines: list[tuple[Path, str]]) -> list[tuple[Answer, Answer]]:
    slots = asyncio.Semaphore(AT_ONCE)
    async with AsyncClient() as errata:

        async def ask(picture: Path, question: str) -> tuple[Answer, Answer]:
            async with slots:
                return await both(errata, picture, question)

        return await asyncio.gather(*(ask(*line) for line in lines))


def main() -> None:
    file = Path(sys.argv[1])
    with file.open(encoding="utf-8", newline="") as opened:
        rows = csv.DictReader(opened)
        lines = [(file.parent / row["picture"], row["question"]) for row in rows]
    changed = 0
    pairs = asyncio.run(ask_all(lines))
    for (picture, question), (base, edited) in zip(lines, pairs, strict=True):
        if base.text != edited.text:
            changed += 1
            by = ", ".join(applied.edit_id for applied in edited.applied)
            print(f"{picture.name}: {question}")
            print(f"  base    {base.text}")
            print(f"  edited  {edited.text}  ({by})")
    print(f"{changed} of {len(lines)} answers differ")


if __name__ == "__main__":
    main()
