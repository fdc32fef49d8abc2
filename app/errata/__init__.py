"""The Python client of an Errata server. It is installed under the name `errata`.

    from errata import Client

    with Client() as errata:
        errata.edit("flag.png", "What is the capital?", "Oslo")
        print(errata.generate("What is the capital?", "flag.png").text)

Nothing of the server is imported here, and every import inside is relative: the same files are
`errata` where they are installed and `app.errata` for the command line.
"""

from __future__ import annotations

from .asynchronous import AsyncClient
from .drafts import Draft
from .errors import (
    BadPicture,
    BadRequest,
    Conflict,
    EditCancelled,
    EditConflicts,
    EditNotEffective,
    ErrataError,
    Forbidden,
    InvalidApiKey,
    Misconfigured,
    NoAnswer,
    NotErrata,
    NotFound,
    Refused,
    ServerFault,
    TooMany,
    Unavailable,
    Unprocessable,
    VersionMismatch,
)
from .models import (
    Answer,
    Applied,
    Attribution,
    Candidate,
    Edit,
    Event,
    Feedback,
    Health,
    Key,
    Load,
    Made,
    NewKey,
    Preview,
    Reached,
    Restored,
    Switched,
    Versions,
)
from .pictures import Picture
from .synchronous import Client

__all__ = [
    "Answer",
    "Applied",
    "AsyncClient",
    "Attribution",
    "BadPicture",
    "BadRequest",
    "Candidate",
    "Client",
    "Conflict",
    "Draft",
    "Edit",
    "EditCancelled",
    "EditConflicts",
    "EditNotEffective",
    "ErrataError",
    "Event",
    "Feedback",
    "Forbidden",
    "Health",
    "InvalidApiKey",
    "Key",
    "Load",
    "Made",
    "Misconfigured",
    "NewKey",
    "NoAnswer",
    "NotErrata",
    "NotFound",
    "Picture",
    "Preview",
    "Reached",
    "Refused",
    "Restored",
    "ServerFault",
    "Switched",
    "TooMany",
    "Unavailable",
    "Unprocessable",
    "VersionMismatch",
    "Versions",
]
