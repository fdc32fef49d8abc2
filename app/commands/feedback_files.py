"""Files of feedback from elsewhere: Open WebUI's export, and plain CSV, as reports to be sent.

A record that cannot be read is told by its number; the others go on.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_BYTES = 512 * 2**20
MOST_RECORDS = 100_000
MOST_PICTURE_BYTES = 10 * 2**20
_MOST_SAID = 4000
_MOST_TEXT = 20_000

COLUMNS = ("prompt", "answer", "verdict", "image", "correction", "comment")


class Unreadable(Exception):
    """The file, or one record of it, is not what its format says."""


@dataclass(frozen=True, slots=True)
class Record:
    """`body` goes to `POST /feedback/import`. `problem`: why there is none. `number` from 1."""

    number: int
    body: Mapping[str, Any] | None = None
    problem: str | None = None
    is_skipped: bool = False
    """There is nothing to report in it: nobody rated the answer."""


def read(file: Path, kind: str, *, pictures: Path | None) -> list[Record]:
    """Every record of `file`, in order. `kind`: openwebui or csv.

    `pictures` is a folder of uploads, for pictures that an export only names. Raises `Unreadable`
    where the file as a whole cannot be read, or is too large.
    """
    reader = {"openwebui": _open_webui, "csv": _csv}[kind]
    try:
        if file.stat().st_size > MOST_BYTES:
            raise Unreadable(f"{file} has more than {MOST_BYTES // 2**20} MiB; split it")
        records = list(reader(file, pictures))
    except OSError as error:
        raise Unreadable(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Unreadable(f"{file} is not UTF-8: {error}") from error
    if len(records) > MOST_RECORDS:
        raise Unreadable(f"{file} has more than {MOST_RECORDS:,} records; split it")
    return records


def _record(number: int, body: Callable[[], Mapping[str, Any] | None]) -> Record:
    try:
        made = body()
    except Unreadable as error:
        return Record(number, problem=str(error))
    return Record(number, made, is_skipped=made is None)


# --- CSV -------------------------------------------------------------------------------------


def _csv(file: Path, _pictures: Path | None) -> Iterator[Record]:
    csv.field_size_limit(2**24)  # a picture may stand in it as a data URI
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines, strict=True)
        try:
            _require_columns(file, rows.fieldnames or ())
            for row in rows:
                yield _record(rows.line_num, lambda row=row: _of_row(row, file.parent))  # type: ignore[misc]
        except csv.Error as error:
            raise Unreadable(f"{file}, line {rows.line_num}: no CSV ({error})") from error


def _require_columns(file: Path, names: Any) -> None:
    missing = [name for name in ("prompt", "answer") if name not in names]
    unknown = [name for name in names if name not in COLUMNS]
    if missing or unknown or len(set(names)) < len(names):
        raise Unreadable(
            f"{file}: the first line names the columns, each once: prompt and answer, and any of "
            f"{', '.join(COLUMNS[2:])}; it says {', '.join(map(repr, names)) or 'nothing'}"
        )


def _of_row(row: Mapping[Any, Any], folder: Path) -> Mapping[str, Any]:
    if None in row or None in row.values():
        raise Unreadable("it has another number of cells than the first line")
    cells = {name: text.strip() for name, text in row.items()}
    verdict = cells.get("verdict") or "wrong"
    if verdict not in ("right", "wrong"):
        raise Unreadable(f"verdict: {verdict!r} is neither right nor wrong")
    image = cells.get("image") or None
    if image is not None and not image.startswith("data:"):
        image = _picture(folder / image)
    body = _body("csv", verdict, cells["prompt"], cells["answer"], image)
    body |= _said(correction=cells.get("correction"), comment=cells.get("comment"))
    text = json.dumps(body, sort_keys=True, ensure_ascii=False)
    return body | {"source_id": hashlib.sha256(text.encode()).hexdigest()[:40]}


# --- Open WebUI ------------------------------------------------------------------------------


def _open_webui(file: Path, pictures: Path | None) -> Iterator[Record]:
    try:
        exported = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        raise Unreadable(f"{file} is no JSON ({error})") from error
    except RecursionError as error:
        raise Unreadable(f"{file} is nested too deeply") from error
    if not isinstance(exported, list):
        raise Unreadable(f"{file}: a list of feedback is wanted, as Open WebUI exports it")
    for number, entry in enumerate(exported, start=1):
        yield _record(number, lambda entry=entry: _of_rating(entry, pictures))  # type: ignore[misc]


def _of_rating(entry: Any, pictures: Path | None) -> Mapping[str, Any] | None:
    """What to report of one rating; None where the answer was not rated."""
    data, meta = _object(entry, "data"), _object(entry, "meta")
    rating = str(data.get("rating"))
    if rating in ("None", "0"):
        return None
    if rating not in ("1", "-1"):
        raise Unreadable(f"data.rating: {rating[:40]!r} is neither 1 nor -1")
    messages = _messages(entry)
    rated = messages.get(str(meta.get("message_id")))
    if rated is None:
        raise Unreadable("the rated message is not in the conversation that it came with")
    question = messages.get(str(rated.get("parentId")))
    if question is None or question.get("role") != "user":
        raise Unreadable("the rated message answers no question")
    verdict = "right" if rating == "1" else "wrong"
    image = _latest_picture(messages, question, pictures)
    body = _body("openwebui", verdict, _text(question), _text(rated), image)
    reason = str(data.get("reason") or "").replace("_", " ")
    comment = ": ".join(part for part in (reason, str(data.get("comment") or "")) if part)
    return body | _said(comment=comment) | {"source_id": str(entry.get("id"))[:200]}


def _object(entry: Any, name: str) -> Mapping[str, Any]:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, dict):
        raise Unreadable(f"an object with {name!r} is wanted")
    return value


def _messages(entry: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The conversation by message id. Releases differ in how deep it lies in `snapshot`."""
    inner: Any = _object(entry, "snapshot")
    for _ in range(3):
        history = inner.get("history")
        if isinstance(history, dict) and history.get("messages"):
            listed = history["messages"]
            each = listed.values() if isinstance(listed, dict) else listed
            return {str(m.get("id")): m for m in each if isinstance(m, dict)}
        inner = inner.get("chat")
        if not isinstance(inner, dict):
            break
    raise Unreadable("it holds no conversation")


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if not isinstance(content, str):
        raise Unreadable("a message without text")
    return content


def _latest_picture(
    messages: Mapping[str, Mapping[str, Any]],
    question: Mapping[str, Any],
    pictures: Path | None,
) -> str | None:
    """That of the question, or of the nearest message before it, as the server goes by it."""
    message: Mapping[str, Any] | None = question
    for _ in range(len(messages)):
        if message is None:
            break
        files = message.get("files")
        for each in reversed(files if isinstance(files, list) else []):
            if isinstance(each, dict) and _is_picture(each):
                return _stored_picture(each, pictures)
        message = messages.get(str(message.get("parentId")))
    return None


def _is_picture(file: Mapping[str, Any]) -> bool:
    return file.get("type") == "image" or str(file.get("content_type")).startswith("image/")


def _stored_picture(file: Mapping[str, Any], pictures: Path | None) -> str:
    url = str(file.get("url") or file.get("id") or "")
    if url.startswith("data:"):
        return url
    file_id = url.removesuffix("/content").rpartition("/")[2]
    if pictures is None:
        raise Unreadable(
            f"its picture is not in the export, only its id {file_id[:60]!r}: name the folder of "
            "Open WebUI's uploads with --pictures"
        )
    # Open WebUI stores an upload as ID_NAME.
    for path in sorted(pictures.iterdir()):
        if file_id and path.name.startswith(f"{file_id}_"):
            return _picture(path)
    raise Unreadable(f"its picture {file_id[:60]!r} is not in {pictures}")


# --- both ------------------------------------------------------------------------------------


def _body(source: str, verdict: str, prompt: str, answer: str, image: str | None) -> dict[str, Any]:
    if not prompt.strip():
        raise Unreadable("its question is blank")
    for name, text in (("question", prompt), ("answer", answer)):
        if len(text) > _MOST_TEXT:
            raise Unreadable(f"its {name} has more than {_MOST_TEXT:,} characters")
    body = {"source": source, "verdict": verdict, "prompt": prompt, "answer": answer}
    return body | ({} if image is None else {"image": image})


def _said(**texts: str | None) -> dict[str, str]:
    said = {name: text for name, text in texts.items() if text}
    for name, text in said.items():
        if len(text) > _MOST_SAID:
            raise Unreadable(f"its {name} has more than {_MOST_SAID:,} characters")
    return said


def _picture(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_PICTURE_BYTES:
            raise Unreadable(f"{path} has more than {MOST_PICTURE_BYTES // 2**20} MiB")
        return base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError as error:
        raise Unreadable(f"cannot read {path}: {error.strerror}") from error
