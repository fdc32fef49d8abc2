"""Correct many answers from a CSV file with the columns picture, question, answer and note.

    python batch_from_csv.py corrections.csv results.csv

Paths of pictures are relative to the file. Run again, it makes no edit twice: each line has an
idempotency key of its own. Exit status 1 if a line was refused.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from pathlib import Path

from errata import Client, Draft, Refused


def drafts(file: Path) -> list[Draft]:
    """One for each line."""
    with file.open(encoding="utf-8", newline="") as opened:
        return [
            Draft(
                image=file.parent / line["picture"],
                prompt=line["question"],
                target=line["answer"],
                note=line.get("note") or None,
                idempotency_key=f"csv-{hashlib.sha256(repr(line).encode()).hexdigest()[:40]}",
            )
            for line in csv.DictReader(opened)
        ]


def main() -> int:
    source, target = map(Path, sys.argv[1:3])
    refused = 0
    with Client() as errata, target.open("w", encoding="utf-8", newline="") as opened:
        results = csv.writer(opened)
        results.writerow(["question", "answer", "status", "edit", "before", "why"])
        for draft in drafts(source):
            words = [draft.prompt, draft.target]
            try:
                edit = errata.send_draft(draft)
            except Refused as error:  # the next line may be fine
                refused += 1
                results.writerow([*words, "refused", "", "", str(error)])
            else:
                results.writerow([*words, edit.status, edit.id, edit.before, ""])
    print(f"{refused} refused; see {target}")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
