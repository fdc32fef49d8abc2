"""A correction that is to be made, as a value: for those who make many."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .models import Verify
from .pictures import Picture, encoded


@dataclass(frozen=True, slots=True)
class Draft:
    """A correction that is to be made: on `image`, to `prompt`, the model shall answer `target`.

    `rephrases` are further wordings that must get the target too, `not_for` questions about the
    picture that must be left alone. `verify` is strict, report or off.
    """

    image: Picture
    prompt: str
    target: str
    rephrases: Sequence[str] = ()
    not_for: Sequence[str] = ()
    editor: str | None = None
    verify: Verify = "strict"
    supersedes: Sequence[str] = ()
    note: str | None = None
    tags: Sequence[str] = ()
    idempotency_key: str | None = None

    def body(self) -> dict[str, Any]:
        """As `POST /edits` takes it. Raises `BadPicture`."""
        return without_none(
            image=encoded(self.image),
            prompt=self.prompt,
            target=self.target,
            rephrases=list(self.rephrases) or None,
            not_for=list(self.not_for) or None,
            editor=self.editor,
            verify=self.verify,
            supersedes=list(self.supersedes) or None,
            note=self.note,
            tags=list(self.tags) or None,
        )

    @property
    def key(self) -> str:
        """Its own idempotency key, or a new one."""
        return self.idempotency_key or f"client-{uuid.uuid4().hex}"


def without_none(**fields: Any) -> dict[str, Any]:
    """The fields that say something: what is left out, the server decides."""
    return {name: value for name, value in fields.items() if value is not None}
