"""Does an edit take? Asked of the model itself, by generating freely, as a client would.

The edit is put into a snapshot beside every active one and must find its own way through the
router: what is verified is what will be served.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from app.engine import InferenceEngine
from editing_core.editable_model import GenerationRow
from editing_core.experts.memory import Snapshot
from editing_core.types import EditRequest, GenerationResult, Sampling


@dataclass(frozen=True, slots=True)
class Verification:
    """The answers before and after, each by greedy generation under real routing.

    It holds beside the active edits of `version`.
    """

    version: int
    before: str
    after: str
    verified: bool


async def verify(
    engine: InferenceEngine, request: EditRequest, *, base: Snapshot, candidate: Snapshot
) -> Verification:
    """Ask the edit's own question of `base`, and of `candidate`, which holds the edit."""
    before = await _answer(engine, request, base)
    after = await _answer(engine, request, candidate)
    return Verification(base.version, before.text, after.text, _is_target(after, request.target))


async def _answer(
    engine: InferenceEngine, request: EditRequest, snapshot: Snapshot
) -> GenerationResult:
    row = GenerationRow(request.prompt, request.image, Sampling(), snapshot)
    (result,) = await engine.generate([row])
    return result


def _is_target(result: GenerationResult, target: str) -> bool:
    """Equal after NFC and trimming, and ended by the stop token rather than by a limit."""
    same = unicodedata.normalize("NFC", result.text).strip() == target
    return same and result.finish_reason == "stop"
