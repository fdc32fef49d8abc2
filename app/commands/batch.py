"""`errata edit --batch FILE`: many corrections, each made once however often it is run.

A line of the file is one edit as JSON, as `POST /edits` takes it; `image` may be the path of a
picture, relative to the file. Each edit's idempotency key is drawn from its line, so a run that
was cut short goes on where it stopped: what is committed is answered again, and not made again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from app.commands.client import fail, server
from app.commands.progress import counted
from app.errata import BadPicture, Client, Forbidden, InvalidApiKey, Refused, TooMany, Unavailable
from app.errata.calls import send_fields
from app.errata.pictures import encoded

POLL_S = 0.5
RETRIES = 5
"""Nobody watches a batch: it waits a while for a server that is busy, or starts anew."""


COMMITTED = ("active", "superseded", "rolled_back", "stale")
_OF_ALL = (InvalidApiKey, Forbidden, TooMany, Unavailable)
"""What is refused so says nothing of the one edit: the next would be refused as well."""


@dataclass(frozen=True, slots=True)
class Line:
    """`number` counts from 1."""

    number: int
    fields: dict[str, Any]

    @property
    def key(self) -> str:
        text = json.dumps(self.fields, sort_keys=True, ensure_ascii=False)
        return f"line-{hashlib.sha256(text.encode()).hexdigest()[:40]}"


def make_all(url: str | None, file: Path) -> None:
    """Make every edit of the file, one after another. Ends with exit status 1 if any was refused.

    The whole file is read before anything is sent. Results are lines of JSON on stdout.
    """
    lines = list(_read(file))
    ends: Counter[str] = Counter()
    with server(url, retries=RETRIES) as client:
        for line in counted(lines, "edits", total=len(lines)):
            result = make_once(client, line.fields, key=line.key)
            ends[result["status"]] += 1
            typer.echo(json.dumps({"line": line.number, **result}, ensure_ascii=False))
    made = sum(ends[status] for status in COMMITTED)
    typer.echo(f"errata: {made} of {len(lines)} edits are made", err=True)
    if made < len(lines):
        raise typer.Exit(1)


def make_once(client: Client, fields: dict[str, Any], *, key: str) -> dict[str, Any]:
    """What came of one edit: its status, id and version, or `refused`, and the error if any.

    However often it is called with the same key, there is one edit. Raises `ErrataError` where
    the server cannot be asked, or would refuse every edit (its key, its limits).
    """
    try:
        edit = client.send(send_fields(fields, idempotency_key=key))
        if edit.is_pending:
            edit = client.settle(edit.id, poll_s=POLL_S)
    except Refused as refusal:
        if isinstance(refusal, _OF_ALL):
            raise
        return {"status": "refused", "error": refusal.fields}
    result = {"status": edit.status, "id": edit.id, "version": edit.version}
    return result | ({"error": edit.error} if edit.error else {})


def _read(file: Path) -> Iterator[Line]:
    try:
        texts = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise fail(f"cannot read {file}: {error}") from error
    for number, text in enumerate(texts, start=1):
        if text.strip():
            yield Line(number, _fields(file, number, text))


def _fields(file: Path, number: int, text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise fail(f"{file}, line {number}: no JSON ({error})") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("image"), str):
        raise fail(
            f'{file}, line {number}: an object with "image", "prompt" and "target" is wanted'
        )
    if not fields["image"].startswith("data:"):
        fields["image"] = _picture(file, number, fields["image"])
    return fields


def _picture(file: Path, number: int, name: str) -> str:
    try:
        return encoded(file.parent / name)
    except BadPicture as error:
        raise fail(f"{file}, line {number}: {error}") from error
