"""What the C library does with memory that is free again."""

from __future__ import annotations

import ctypes
import logging

logger = logging.getLogger(__name__)

_M_MMAP_THRESHOLD = -3
_BYTES = 4 * 1024 * 1024


def trim() -> None:
    """What lies free between small blocks goes back to the system now. Takes milliseconds."""
    _call("malloc_trim", 0)


def give_back_freed_memory() -> None:
    """From now on, large blocks go back to the system as soon as they are freed.

    glibc begins that way, and with every large block that is freed keeps larger ones for itself,
    up to 32 MiB: bodies, pictures and their copies would stay for ever. Other C libraries do not
    know the setting and do not need it.
    """
    _call("mallopt", _M_MMAP_THRESHOLD, _BYTES)


def _call(name: str, *arguments: int) -> None:
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        logger.debug("this C library has no %s", name)
        return
    function(*arguments)
