"""Every route that a caller uses, as a function that says what to send; both clients have them all.

Pictures are a path, bytes, a PIL image, a numpy array, or a data URI (`pictures.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from .drafts import Draft, without_none
from .models import (
    Answer,
    Attribution,
    Edit,
    Event,
    Feedback,
    Health,
    Key,
    KeyScope,
    Load,
    NewKey,
    Preview,
    Reported,
    Restored,
    Switched,
    TakenIn,
    Verdict,
    Verify,
    Versions,
)
from .pictures import Picture, encoded
from .requests import Call, Listing, one


def edit(
    image: Picture,
    prompt: str,
    target: str,
    *,
    rephrases: Sequence[str] = (),
    not_for: Sequence[str] = (),
    editor: str | None = None,
    verify: Verify = "strict",
    supersedes: Sequence[str] = (),
    note: str | None = None,
    tags: Sequence[str] = (),
    idempotency_key: str | None = None,
) -> Call[Edit]:
    """Correct an answer. The same `idempotency_key` sent again makes no second edit; one is made up
    where none is given, so that a repeated request is safe.

    Raises `EditNotEffective` and `EditConflicts` where verification refuses it.
    """
    return send_draft(
        Draft(
            image,
            prompt,
            target,
            rephrases=rephrases,
            not_for=not_for,
            editor=editor,
            verify=verify,
            supersedes=supersedes,
            note=note,
            tags=tags,
            idempotency_key=idempotency_key,
        )
    )


def send_draft(draft: Draft) -> Call[Edit]:
    """The same, for a `Draft`."""
    return send_fields(draft.body(), idempotency_key=draft.key)


def send_fields(fields: Mapping[str, Any], *, idempotency_key: str) -> Call[Edit]:
    """The same, for fields that are sent as they are: the server judges them."""
    headers = {"Idempotency-Key": idempotency_key}
    return Call("POST", "/edits", one(Edit), body=fields, headers=headers)


def generate(
    prompt: str,
    image: Picture | None = None,
    *,
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] | None = None,
    edits: bool = True,
    at_version: int | None = None,
    min_version: int | None = None,
    explain: bool = False,
) -> Call[Answer]:
    """Ask the model. `edits=False` asks the base model; `at_version` the edits of then.

    `min_version` waits until that version is served. None leaves a parameter to the server.
    """
    body = without_none(
        prompt=prompt,
        image=None if image is None else encoded(image),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        stop=stop if stop is None or isinstance(stop, str) else list(stop),
        edits=None if edits else "off",
        at_version=at_version,
        min_version=min_version,
        explain=explain or None,
    )
    return Call("POST", "/generate", one(Answer), body=body)


def explain(
    image: Picture, prompt: str, *, at_version: int | None = None, edits: bool = True
) -> Call[Answer]:
    """Ask, with `candidates`: every edit whose picture is near, and what became of it."""
    return generate(prompt, image, at_version=at_version, edits=edits, explain=True)


def attribute(image: Picture, prompt: str, *, token: int = 0) -> Call[Attribution]:
    """Where the base model's answer comes from: layers, and patches of the picture."""
    body = {"image": encoded(image), "prompt": prompt, "token": token}
    return Call("POST", "/attributions", one(Attribution), body=body)


def get_edit(edit_id: str) -> Call[Edit]:
    """One edit with its `history`. Raises `NotFound`."""
    return Call("GET", _edit(edit_id), one(Edit))


def edits(
    *,
    status: str = "all",
    search: str | None = None,
    tag: str | None = None,
    limit: int | None = None,
    page_size: int = 200,
) -> Listing[Edit]:
    """Edits, newest first, read page by page. `search` looks in prompt and target."""
    params = without_none(status=status, q=search, tag=tag)
    return Listing("/edits", Edit.model_validate, params, most=limit, page_size=page_size)


def cancel(edit_id: str) -> Call[Edit]:
    """Stop an edit that is still being made."""
    return Call("POST", f"{_edit(edit_id)}/cancel", one(Edit), body={})


def picture(edit_id: str) -> Call[bytes]:
    """The pixels that an edit was made of, as PNG."""
    return Call("GET", f"{_edit(edit_id)}/image", lambda response: response.content)


def thumbnail(edit_id: str) -> Call[bytes]:
    """The same, small: WebP, at most 192 pixels wide and high."""
    return Call("GET", f"{_edit(edit_id)}/thumbnail", lambda response: response.content)


def scope(
    edit_id: str,
    *,
    rephrases: Sequence[str] = (),
    not_for: Sequence[str] = (),
    remove_rephrases: Sequence[str] = (),
    remove_not_for: Sequence[str] = (),
    verify: Verify = "strict",
    reason: str | None = None,
) -> Call[Switched]:
    """Change which questions an edit answers: wordings to add, and to take away."""
    body = without_none(
        rephrases=list(rephrases),
        not_for=list(not_for),
        remove_rephrases=list(remove_rephrases),
        remove_not_for=list(remove_not_for),
        verify=verify,
        reason=reason,
    )
    return Call("POST", f"{_edit(edit_id)}/scope", one(Switched), body=body)


def preview(
    *,
    edit_id: str | None = None,
    prompt: str | None = None,
    rephrases: Sequence[str] = (),
    not_for: Sequence[str] = (),
    questions: Sequence[str] = (),
    limit: int | None = None,
) -> Call[Preview]:
    """Where an edit, or a prompt that could become one, will apply. Nothing is written."""
    body = without_none(
        edit_id=edit_id,
        prompt=prompt,
        rephrases=list(rephrases) or None,
        not_for=list(not_for) or None,
        questions=list(questions) or None,
        limit=limit,
    )
    return Call("POST", "/scope/preview", one(Preview), body=body)


def rollback(edit_id: str, *, reason: str | None = None) -> Call[Switched]:
    """Take one edit back. Nothing is deleted."""
    body = without_none(reason=reason)
    return Call("POST", f"/admin{_edit(edit_id)}/rollback", one(Switched), body=body)


def reinstate(edit_id: str, *, reason: str | None = None, force: bool = False) -> Call[Switched]:
    """Put one edit back. `force` also one that conflicts, or that other weights made."""
    body = without_none(reason=reason, force=force or None)
    return Call("POST", f"/admin{_edit(edit_id)}/reinstate", one(Switched), body=body)


def restore(
    version: int, *, reason: str | None = None, if_version: int | None = None
) -> Call[Restored]:
    """Return to the edits of an earlier version; 0 is the base model.

    Raises `VersionMismatch` if `if_version` is given and is no longer the newest one. Such a call
    is not repeated once it may have arrived: it might then be refused for what it did itself.
    """
    body = without_none(to_version=version, reason=reason)
    headers = {} if if_version is None else {"If-Match": f'"{if_version}"'}
    call = one(Restored)
    repeatable = if_version is None
    return Call("POST", "/admin/rollback", call, body=body, headers=headers, repeatable=repeatable)


def events(*, after: int = 0, limit: int | None = None) -> Listing[Event]:
    """The event log after version `after`, oldest first, read page by page."""
    params = {"after": str(after)}
    return Listing("/admin/events", Event.model_validate, params, "last_version", most=limit)


def versions() -> Call[Versions]:
    """What is running: the newest version, how many edits, which weights."""
    return Call("GET", "/versions", one(Versions))


def report(
    answer_id: str,
    verdict: Verdict = "wrong",
    *,
    correction: str | None = None,
    comment: str | None = None,
) -> Call[Reported]:
    """Say that an answer is right or wrong. `answer_id` is the `id` of an `Answer`."""
    body = without_none(
        answer_id=answer_id, verdict=verdict, correction=correction, comment=comment
    )
    return Call("POST", "/feedback", one(Reported), body=body, repeatable=False)


def import_feedback(report: Mapping[str, Any]) -> Call[TakenIn]:
    """Take in a report from elsewhere, once for each `source` and `source_id`.

    `report` has `prompt`, `answer`, `verdict` and those two; it may have `image`, a data URI,
    `correction` and `comment`.
    """
    return Call("POST", "/feedback/import", one(TakenIn), body=dict(report))


def feedback(*, status: str = "open", limit: int | None = None) -> Listing[Feedback]:
    """Reports, newest first, read page by page."""
    return Listing("/feedback", Feedback.model_validate, {"status": status}, most=limit)


def get_feedback(feedback_id: str) -> Call[Feedback]:
    """One report, with what came of it."""
    return Call("GET", f"/feedback/{quote(feedback_id, safe='')}", one(Feedback))


def feedback_thumbnail(feedback_id: str) -> Call[bytes]:
    """The picture of an open report, small: WebP, at most 192 pixels wide and high."""
    path = f"/feedback/{quote(feedback_id, safe='')}/thumbnail"
    return Call("GET", path, lambda response: response.content)


def feedback_picture(feedback_id: str) -> Call[bytes]:
    """The picture of an open report, as PNG."""
    path = f"/feedback/{quote(feedback_id, safe='')}/image"
    return Call("GET", path, lambda response: response.content)


def resolve(
    feedback_id: str,
    by: Literal["edit", "scope", "dismissal"],
    *,
    edit_id: str | None = None,
    reason: str | None = None,
) -> Call[Feedback]:
    """Close a report: by an edit or by an edit's new scope (`edit_id`), or by dismissal."""
    body = without_none(by=by, edit_id=edit_id, reason=reason)
    path = f"/feedback/{quote(feedback_id, safe='')}/resolve"
    return Call("POST", path, one(Feedback), body=body)


def list_keys() -> Call[list[Key]]:
    """All API keys, revoked ones too, oldest first."""
    return Call(
        "GET",
        "/admin/keys",
        lambda response: [Key.model_validate(each) for each in response.json()["data"]],
    )


def create_key(
    label: str,
    scope: KeyScope = "infer",
    *,
    requests_per_minute: int | None = None,
    edits_per_day: int | None = None,
) -> Call[NewKey]:
    """Make an API key. Its `token` is shown this once."""
    body = without_none(
        label=label,
        scope=scope,
        requests_per_minute=requests_per_minute,
        edits_per_day=edits_per_day,
    )
    return Call("POST", "/admin/keys", one(NewKey), body=body, repeatable=False)


def revoke_key(key_id: str) -> Call[Key]:
    """End a key, at once and for good."""
    return Call("POST", f"/admin/keys/{quote(key_id, safe='')}/revoke", one(Key), body={})


def health() -> Call[Health]:
    """Whether the server can serve. No key is needed, and a server that cannot is no error."""
    return Call("GET", "/health/ready", one(Health), accepts=frozenset({503}))


def load() -> Call[Load]:
    """How busy the server is."""
    return Call("GET", "/health/load", one(Load))


def _edit(edit_id: str) -> str:
    return f"/edits/{quote(edit_id, safe='')}"
