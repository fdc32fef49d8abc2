"""How a client of another virtual environment is spoken to: a question a line, an answer a line.

    python ask_CLIENT.py BASE_URL MODEL PICTURE

Programs here are run by that environment's Python, and import nothing of this project.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path


def arguments() -> tuple[str, str, str]:
    """The server's base URL, the model's name, and the path of a PNG."""
    url, model, picture = sys.argv[1:]
    return url, model, picture


def data_uri(picture: str) -> str:
    return "data:image/png;base64," + base64.b64encode(Path(picture).read_bytes()).decode()


def talk(ask: Callable[[str], str]) -> None:
    """Answer every line of the input by `ask`; the answers are JSON."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(ask(line.strip())) + "\n")
        sys.stdout.flush()
