"""Pictures of any kind as text for a request: a path, bytes, a PIL image, or a numpy array."""

from __future__ import annotations

import base64
import io
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import BadPicture

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    Picture: TypeAlias = str | os.PathLike[str] | bytes | Image | np.ndarray[Any, Any]
else:
    Picture = Any

MOST_BYTES = 16 * 1024 * 1024
"""More no server takes; a file beyond it is not read."""


def encoded(picture: Picture) -> str:
    """The picture as bare base64; a data URI stays what it is. Raises `BadPicture`.

    A text is the path of a file, unless it begins with `data:`. Arrays are uint8, [height, width]
    or [height, width, 3 or 4].
    """
    if isinstance(picture, str) and picture.startswith("data:"):
        return picture
    return base64.b64encode(_bytes(picture)).decode("ascii")


def _bytes(picture: Any) -> bytes:
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, str | os.PathLike):
        return _read(Path(picture))
    # By name: neither library is imported for callers who use none of it.
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(picture).mro()}
    if "PIL.Image" in kinds:
        return _png(picture)
    if "numpy.ndarray" in kinds:
        return _png(_image_of(picture))
    raise BadPicture(
        f"a picture is a path, bytes, a PIL image or a numpy array, not {type(picture).__name__}"
    )


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadPicture(f"cannot read {path}: it is no file")
        if status.st_size > MOST_BYTES:
            raise BadPicture(f"{path} has {status.st_size:,} bytes; no server takes so large a one")
        return path.read_bytes()
    except OSError as error:
        raise BadPicture(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # a path with a null character
        raise BadPicture(f"cannot read {path!r}: {error}") from error


def _image_of(pixels: Any) -> Any:
    from PIL import Image

    shape = tuple(pixels.shape)
    is_picture = len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))
    if str(pixels.dtype) != "uint8" or not is_picture or 0 in shape:
        raise BadPicture(
            f"an array must be uint8, [height, width] or [height, width, 3 or 4]; this one is "
            f"{pixels.dtype}, {list(shape)}"
        )
    return Image.fromarray(pixels)


def _png(image: Any) -> bytes:
    written = io.BytesIO()
    try:
        image.save(written, "PNG")
    except OSError as error:  # a mode that PNG cannot hold
        try:
            image.convert("RGB").save(written, "PNG")
        except (OSError, ValueError):
            raise BadPicture(f"the image cannot be written as PNG: {error}") from error
    return written.getvalue()
