"""Reading images: bytes, their checksum, and RGB pixels."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_harness.errors import SampleError
from vlm_harness.types import ImageRef

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image."""

    pixels: "Image"
    """PIL image, mode RGB, upright (EXIF orientation applied)."""
    sha256: str
    """Of the file's bytes as stored."""
    path: str


def file_ref(root: Path, relative: str) -> ImageRef:
    """An image file below ``root``."""
    path = root / relative

    def size() -> int | None:
        return path.stat().st_size if path.is_file() else None

    return ImageRef(path=relative, read=path.read_bytes, exists=path.is_file, size=size)


def load(ref: ImageRef) -> Picture:
    """Read and decode.

    Raises:
        SampleError: the bytes cannot be read, or are no image.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        data = ref.read()
        with Image.open(io.BytesIO(data)) as image:
            # Peers hand files to the processor as they lie: a sideways EXIF photograph would then
            # be judged left-right where it is up-down.
            pixels = ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError:
        raise SampleError(f"image {ref.path}: the file is no image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SampleError(f"image {ref.path}: {error}") from None
    return Picture(pixels, hashlib.sha256(data).hexdigest(), ref.path)
