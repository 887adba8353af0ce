"""Images that are stored in the rows: as bytes, or as base64 text with or without ``data:``.

Readers replace each of them by an ``ImageRef``, so that a row holds no pixels, and a template that
names the column gets an image. Nothing is decoded before a model needs the pixels.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from vlm_harness.images import begins_like_image
from vlm_harness.types import ImageRef

_MIN_LENGTH = 40
"""Number of characters; the smallest image files take more."""
_HEAD = re.compile(r"\s*([A-Za-z0-9+/_-]{24})")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_DATA_URI = re.compile(r"\s*data:[\w.+-]*(?:/[\w.+-]*)?(?:;[\w.+=-]*)*;base64,", re.IGNORECASE)

Step = str | int
Read = Callable[[tuple[Step, ...]], Any]
"""Reads the value at a place of the row again."""


def is_image_text(text: str) -> bool:
    """Whether a text is the base64 of an image, rather than a path or a sentence.

    A ``data:`` URI always is. Otherwise its characters must be those of base64, and its first bytes
    those of an image format.
    """
    if len(text) < _MIN_LENGTH:
        return False
    if _DATA_URI.match(text):
        return True
    head = _HEAD.match(text)
    if head is None or not begins_like_image(_decode(head[1])):
        return False
    return _BASE64.fullmatch("".join(text.split())) is not None


def image_of_text(text: str, path: str) -> ImageRef:
    """The image of a text for which ``is_image_text`` holds."""
    return ImageRef(path=path, read=lambda: _bytes_of(text))


def image_of_bytes(data: bytes, path: str) -> ImageRef:
    return ImageRef(path=path, read=lambda: data)


def content_label(data: bytes | str) -> str:
    """A label for an image without a column, which identifies its content."""
    return hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()[:16]


def with_images(row: Mapping[str, Any], label: str, read: Read | None = None) -> dict[str, Any]:
    """The row with a reference in place of each image, also inside lists and objects.

    Args:
        label: identifies the row; the references are named ``label/column``.
        read: reads a value again when its pixels are needed, so that it need not stay in memory.
    """
    return {name: _replaced(value, label, (name,), read) for name, value in row.items()}


def _replaced(value: Any, label: str, at: tuple[Step, ...], read: Read | None) -> Any:
    if isinstance(value, str):
        path = "/".join(map(str, (label, *at)))
        if is_image_text(value):
            if read is None:
                return image_of_text(value, path)
            return ImageRef(path=path, read=lambda: _bytes_of(read(at)))
        # Tables of texts hold several images of a row as a list written out.
        return [
            image_of_text(text, f"{path}/{n}") for n, text in enumerate(_listed(value))
        ] or value
    if isinstance(value, bytes):
        return image_of_bytes(value, "/".join(map(str, (label, *at)))) if value else None
    if isinstance(value, list):
        return [_replaced(item, label, (*at, n), read) for n, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: _replaced(item, label, (*at, key), read) for key, item in value.items()}
    return value


def _listed(text: str) -> list[str]:
    """The images in a text such as ``['iVBO...', 'iVBO...']``; empty for any other text."""
    if not (len(text) > _MIN_LENGTH and text.lstrip().startswith(("['", '["'))):
        return []
    found = [one or other for one, other in _QUOTED.findall(text)]
    return found if found and all(map(is_image_text, found)) else []


def _bytes_of(text: str) -> bytes:
    """Raises OSError, as reading a file does, if the text is not valid base64."""
    try:
        return _decode("".join(_DATA_URI.sub("", text, count=1).split()))
    except (binascii.Error, ValueError) as error:
        raise OSError(f"not valid base64: {error}") from None


def _decode(text: str) -> bytes:
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
