"""A model is tried once before anything is measured or served with it.

    lay_out_once    without weights: its processor, template and tokenizer write a row
    rehearse        with them: a picture, a question and an answer go through the whole of it

What goes wrong here would go wrong with every request, or after minutes of measuring.
"""

from __future__ import annotations

import numpy as np
import torch

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PromptRow
from editing_core.errors import CheckpointUnsupported, NotFinite, RequestError

_QUESTION, _ANSWER = "What is this?", "yes"
_HEIGHT, _WIDTH = 64, 96


def lay_out_once(backbone: Backbone) -> None:
    """Raises `CheckpointUnsupported` where a plain question and answer cannot be written."""
    try:
        answer = backbone.encode_target(_ANSWER)
        for has_image in (False, True):
            backbone.lay_out(_QUESTION, has_image=has_image, target_ids=answer)
    except RequestError as error:
        raise CheckpointUnsupported(f"this model cannot be asked: {error.message}") from error


@torch.no_grad()
def rehearse(backbone: Backbone) -> None:
    """Raises `CheckpointUnsupported` where parts do not fit each other, and `NotFinite`."""
    shades = np.linspace(0, 255, _HEIGHT * _WIDTH * 3).astype(np.uint8)
    image = shades.reshape(_HEIGHT, _WIDTH, 3)
    try:
        features = backbone.compute_features(image)
        batch = backbone.prepare([PromptRow(_QUESTION, features, target=_ANSWER)])
        logits = backbone.logits(backbone.last_states(batch)[:, -1:])
    except (RequestError, RuntimeError, ValueError, IndexError, TypeError) as error:
        raise CheckpointUnsupported(
            f"this model fails on a plain picture and question: {error}",
            hint="Its configuration, processor and weights do not fit each other.",
        ) from error
    for what, numbers in (
        ("picture", features.patches),
        ("image key", torch.from_numpy(features.key)),
        ("answer", logits),
    ):
        if not bool(torch.isfinite(numbers).all()):
            raise NotFinite(f"this model gives no numbers for a plain {what} (NaN or infinity)")
