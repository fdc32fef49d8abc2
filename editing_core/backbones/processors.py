"""Processors from a folder, without the parts that need torchvision where it is not installed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers.utils import is_torchvision_available

from editing_core.backbones.weights import reading
from editing_core.errors import CheckpointError

_VIDEO = "video_processor"

logger = logging.getLogger(__name__)


def load_processor(kind: Any, folder: Path, *, trust_remote_code: bool = False) -> Any:
    """`kind.from_pretrained` on a local folder; its own code is run only if that is trusted.

    A processor that also takes video cannot be built without torchvision. There, only its image
    and text parts are, and the log says so. Raises `CheckpointCorrupt` on a damaged folder, and
    `CheckpointError` naming the package to install when the image part needs it too.
    """
    if _VIDEO in kind.get_attributes() and not is_torchvision_available():
        logger.info("%s without its video part: torchvision is not installed", kind.__name__)
        kind = without_video(kind)
    try:
        with reading(folder):
            return kind.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            )
    except ImportError as error:
        raise CheckpointError(
            f"the processor in {folder} needs a package that is not installed: {error}",
            hint="Install it (for most processors: pip install torchvision) and start again.",
        ) from error


def without_video(kind: Any) -> Any:
    """A processor class like `kind` that takes no video."""
    parts = [name for name in kind.get_attributes() if name != _VIDEO]

    def get_attributes(cls: type) -> list[str]:
        del cls
        return list(parts)

    return type(kind.__name__, (kind,), {"get_attributes": classmethod(get_attributes)})
