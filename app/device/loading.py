"""The model that the settings name, put together, or measured first."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from app.errors import StartupError
from app.settings import Settings
from editing_core.config import Placement
from editing_core.editable_model import EditableModel
from editing_core.types import Notify

logger = logging.getLogger(__name__)

_SERVED_EDITORS = ("visedit", "fitted")
"""Loaded beside the default one, where the checkpoint has them."""

_PROGRESS_LINES = 4
"""How often a measurement of the first start is heard of in the log."""


def log_progress(what: str, done: int, total: int) -> None:
    """Of the first start, which may take minutes."""
    step = max(1, total // _PROGRESS_LINES)
    if done % step == 0 or done == total:
        logger.info("first start: %s, %d of %d", what, done, total)


def load_model(
    settings: Settings, *, parts: Path | None = None, notify: Notify | None = None
) -> EditableModel:
    """The model that these settings name, measured first where nothing was trained for it.

    `parts` is another folder for what is measured than the settings'. Says in the log which editor
    is the default and why. Raises `StartupError` where the model cannot run as it should, and what
    `EditableModel.load` raises.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    try:
        Placement.resolve(settings.device, settings.dtype, settings.quantization)
    except (ValueError, RuntimeError) as error:
        raise StartupError(str(error)) from error
    model = EditableModel.load(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        quantization=settings.quantization,
        revision=settings.revision,
        clip=settings.clip,
        questions=settings.question_encoder,
        eyes=settings.eyes,
        trust_remote_code=settings.trust_remote_code,
        editors=None if settings.editor is None else (settings.editor,),
        where_there=_SERVED_EDITORS,
        parts=parts or settings.parts_dir,
        notify=notify,
    )
    router = model.router
    logger.info("image keys are made by %s, tau %.4f", router.image_key_model, router.tau)
    if model.eyes_fingerprint:
        logger.info("pictures that the CLIP does not know are keyed by %s", model.eyes_fingerprint)
    if model.questions is not None:
        logger.info("questions are compared by the encoder %s", model.questions.fingerprint)
    if settings.editor is not None:
        logger.info("the default editor is %s: it is the one that was set", settings.editor)
    elif model.default_editor is not None:
        logger.info("the default editor is %s: the first that fits", model.default_editor)
    else:
        logger.warning("no editor fits this model: it answers, and edits are refused")
    return model
