"""Does every edit in force still hold? Ask each one's own questions, and write a report.

    python nightly_regression.py report.html        (or report.md)

An edit holds if its prompt and its rephrases get its target, and it takes no part in questions
that it is not for. Edits that were made with `verify: "off"` may fail from the first night. Exit
status 1 if any edit does not hold, so that a scheduler notices.
"""

from __future__ import annotations

import html
import sys
from dataclasses import dataclass
from pathlib import Path

from errata import Client, Edit


@dataclass(frozen=True)
class Failure:
    edit: Edit
    question: str
    wanted: str
    answer: str


def failures_of(errata: Client, edit: Edit, version: int) -> list[Failure]:
    """What is wrong with one edit, as of that version."""
    picture = errata.picture(edit.id)
    failures = []
    for question in [edit.prompt, *edit.rephrases]:
        answer = errata.generate(question, picture, at_version=version)
        if answer.text != edit.target:
            failures.append(Failure(edit, question, edit.target, answer.text))
    for question in edit.not_for:
        answer = errata.generate(question, picture, at_version=version)
        if edit.id in [applied.edit_id for applied in answer.applied]:
            failures.append(Failure(edit, question, "not this edit's answer", answer.text))
    return failures


def report(checked: int, version: int, failures: list[Failure], *, as_html: bool) -> str:
    heading = f"{checked} edits at version {version}: {len(failures)} questions fail"
    columns = ("edit", "question", "wanted", "answer")
    rows = [(f.edit.id, f.question, f.wanted, f.answer) for f in failures]
    if as_html:
        cells = [("th", columns), *(("td", row) for row in rows)]
        lines = "\n".join(
            "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
            for tag, row in cells
        )
        page = f"<h1>{heading}</h1>\n<table border=1>\n{lines}\n</table>\n"
        return f"<!doctype html>\n<meta charset=utf-8>\n<title>Edits</title>\n{page}"
    table = [columns, ("---",) * 4, *(tuple(c.replace("|", "\\|") for c in row) for row in rows)]
    return f"# {heading}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in table) + "\n"


def main() -> int:
    target = Path(sys.argv[1])
    with Client() as errata:
        version = errata.versions().version  # whatever is edited meanwhile, one state is checked
        checked, failures = 0, []
        for edit in errata.edits(status="active"):
            if edit.version is not None and edit.version <= version:
                checked += 1
                failures += failures_of(errata, edit, version)
    text = report(checked, version, failures, as_html=target.suffix == ".html")
    target.write_text(text, encoding="utf-8")
    print(f"{checked} edits, {len(failures)} failures; see {target}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
