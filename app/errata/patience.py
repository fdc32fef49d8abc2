"""How often a request is sent again, and after how long: twice the wait each time, with jitter.

The wait that a server asks for (`Retry-After`) counts, unless it is longer than anybody waits.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .errors import ErrataError, NotErrata, Refused
from .requests import may_pass

FIRST_S = 0.25
LONGEST_S = 8.0
LONGEST_ASKED_S = 60.0


@dataclass(slots=True)
class Patience:
    """For one request. `left` counts the times that it may still be sent again."""

    left: int
    repeatable: bool
    _next_s: float = FIRST_S

    def after(self, error: ErrataError) -> float | None:
        """Seconds to wait before the next try; None: there is none."""
        if self.left <= 0 or not may_pass(error, repeatable=self.repeatable):
            return None
        wanted = error.retry_after if isinstance(error, Refused | NotErrata) else None
        if wanted is not None and wanted > LONGEST_ASKED_S:
            return None
        self.left -= 1
        drawn = self._next_s * random.uniform(0.5, 1.0)
        self._next_s = min(2 * self._next_s, LONGEST_S)
        return drawn if wanted is None else max(wanted, drawn)
