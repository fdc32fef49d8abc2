"""How sure an edit must be that a question means it: names of points on an encoder's curve."""

from __future__ import annotations

from typing import Literal

Preference = Literal["precision", "balanced", "recall"]
"""`precision`: few other questions fire. `recall`: few wordings are missed. See `GateLine`."""
