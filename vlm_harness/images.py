"""Reads images: bytes, checksum and RGB pixels. Images can be prefetched in threads.

The pixels match those of the benchmarks' official loaders (``Image.open(...).convert("RGB")``),
except for two kinds of files that these loaders get wrong, and for size limits:

| file | pixels |
|---|---|
| EXIF orientation | applied to image columns, as ``datasets`` does; else ignored (see ``exif``) |
| greyscale, palette, CMYK | converted to RGB |
| transparent | the stored colours; the alpha channel is dropped |
| animated, multi-page | the first frame or page |
| 16-bit greyscale | scaled to 8 bits (Pillow clips at 255, so almost all pixels become white) |
| 32-bit, floating point | an error: the white level is unknown |
| file extension of another format | the format is detected from the content |
| truncated, empty, not an image | an error; never a partially decoded image |
| larger than ``MAX_PIXELS`` or ``MAX_BYTES`` | an error, raised before decoding |
| format not in ``FORMATS`` | an error: some formats are programs (EPS runs Ghostscript) |
"""

import hashlib
import io
import threading
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_harness.errors import SampleError, clip
from vlm_harness.types import ImageRef

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
MAX_PIXELS = 100_000_000
MAX_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A decoded image."""

    pixels: "Image"
    """PIL image, mode RGB; reduced to one pixel if ``prepared`` replaces it."""
    sha256: str
    """Checksum of the stored bytes."""
    path: str
    prepared: Any = None
    """Result of the backend's ``preprocess`` for the pixels, if it has one."""


def file_ref(root: Path, relative: str) -> ImageRef:
    """An image file below ``root``."""
    path = root / relative

    def size() -> int | None:
        return path.stat().st_size if path.is_file() else None

    return ImageRef(path=relative, read=path.read_bytes, exists=path.is_file, size=size)


def read(ref: ImageRef) -> bytes:
    """The stored bytes.

    Raises:
        SampleError: the file cannot be read, or is larger than ``MAX_BYTES``.
    """
    try:
        _check_size(ref, ref.size())
        data = ref.read()
        _check_size(ref, len(data))  # unknown before if the image is embedded in a row
        return data
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SampleError(f"image {clip(ref.path)}: {reason}") from None


def _check_size(ref: ImageRef, size: int | None) -> None:
    if size is not None and size > MAX_BYTES:
        raise SampleError(f"image {clip(ref.path)}: {size:,} bytes; the limit is {MAX_BYTES:,}")


def checksum(ref: ImageRef) -> str:
    """SHA-256 of the stored bytes, which are not decoded. Raises as ``read``."""
    return hashlib.sha256(read(ref)).hexdigest()


def load(ref: ImageRef) -> LoadedImage:
    """Read and decode.

    Raises:
        SampleError: the file cannot be read, or is not a supported image.
    """
    data = read(ref)
    return LoadedImage(decode(data, ref), hashlib.sha256(data).hexdigest(), ref.path)


def decode(data: bytes, ref: ImageRef, min_side: int | None = None) -> "Image":
    """Decode the bytes of an image.

    Args:
        min_side: allows a JPEG to be decoded at reduced size, which is faster, with both sides
            still at least this long.

    Raises:
        SampleError: the bytes are not a supported image.
    """
    try:
        return _decode(data, ref.upright, min_side)
    # On broken files decoders raise anything: struct.error, IndexError, SyntaxError, ...
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise SampleError(f"image {clip(ref.path)}: {reason}") from None


def _decode(data: bytes, upright: bool, min_side: int | None) -> "Image":
    """As ``decode``, but may raise any exception; the message of a SampleError is for users."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise SampleError("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError:
        raise SampleError(
            f"the file is not an image in a supported format ({', '.join(_formats())})"
        ) from None
    except Image.DecompressionBombError:
        raise SampleError(f"more pixels than the limit of {MAX_PIXELS:,}") from None
    with image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise SampleError(f"{width} x {height} pixels; the limit is {MAX_PIXELS:,}")
        if image.mode in ("I", "F") and image.format != "PPM":  # PPM uses mode I for 16-bit grey
            raise SampleError("32-bit pixels are not supported: the white level is unknown")
        if min_side is not None:
            image.draft(image.mode, (min_side, min_side))
        oriented = ImageOps.exif_transpose(image) if upright else image
        return _to_eight_bits(oriented).convert("RGB")


def begins_like_image(head: bytes) -> bool:
    """Whether Pillow takes these first bytes (16 suffice) for a format in ``FORMATS``."""
    from PIL import Image

    accepts = (Image.OPEN[name][1] for name in _formats())
    return any(accept is not None and accept(head) is True for accept in accepts)


@cache
def _formats() -> tuple[str, ...]:
    """The formats in ``FORMATS`` that this build of Pillow supports."""
    from PIL import Image

    Image.init()
    # Pillow warns of large sizes and broken metadata; both are handled above.
    warnings.filterwarnings("ignore", module=r"PIL\.", category=UserWarning)
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _to_eight_bits(image: "Image") -> "Image":
    if not image.mode.startswith("I"):
        return image
    import numpy as np
    from PIL import Image

    return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))


class ImageLoader:
    """Reads images for a backend; caches the most recent images, and all checksums.

    Args:
        keep: number of images to cache; increased to the size of a batch if that is larger.
        workers: number of prefetch threads. Decoding and preprocessing release the GIL.
        prepare: called with the pixels of every image, in the thread that read it.
    """

    def __init__(
        self,
        keep: int = 32,
        workers: int = 0,
        prepare: "Callable[[Image], Any] | None" = None,
    ) -> None:
        self._min_keep = self._keep = keep
        self._next_batch: frozenset[ImageRef] = frozenset()
        self._prepare = prepare
        self._recent: dict[ImageRef, LoadedImage] = {}
        self._pending: dict[ImageRef, Future[LoadedImage]] = {}
        self._no_prefetch: set[ImageRef] = set()  # decoded before, or not needed
        self._pool = ThreadPoolExecutor(workers) if workers else None
        self._lock = threading.Lock()  # the next batch is prepared in another thread
        self.sha256: dict[str, str] = {}
        """Checksum by path of every file that was read."""

    def __enter__(self) -> "ImageLoader":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def prefetch(self, refs: Iterable[ImageRef]) -> None:
        """Start reading the images of the next batch, except for images that were read before.

        Images that were prefetched for an earlier batch and never used are dropped.
        """
        if self._pool is None:
            return
        wanted = dict.fromkeys(refs)
        with self._lock:
            for ref in self._pending.keys() - wanted.keys() - self._next_batch:
                del self._pending[ref]
            self._next_batch = frozenset(wanted)
            self._keep = max(self._min_keep, len(wanted))
            for ref in wanted:
                if ref not in self._no_prefetch and ref not in self._pending:
                    self._pending[ref] = self._pool.submit(self._load, ref)

    def skip_prefetch(self, ref: ImageRef) -> None:
        """Do not prefetch this image, since its result is already known."""
        self._no_prefetch.add(ref)

    def get(self, ref: ImageRef) -> LoadedImage:
        """The decoded image.

        Raises:
            SampleError: the image cannot be read.
        """
        with self._lock:
            image = self._recent.pop(ref, None)
            pending = self._pending.pop(ref, None)
        if image is None:
            image = self._load(ref) if pending is None else pending.result()
        with self._lock:
            self._recent[ref] = image
            self._no_prefetch.add(ref)
            self.sha256[ref.path] = image.sha256
            while len(self._recent) > self._keep:
                del self._recent[next(iter(self._recent))]
        return image

    def checksum(self, ref: ImageRef) -> str:
        """SHA-256 of the stored bytes; each file is read only once."""
        if ref.path not in self.sha256:
            self.sha256[ref.path] = checksum(ref)
        return self.sha256[ref.path]

    def _load(self, ref: ImageRef) -> LoadedImage:
        image = load(ref)
        if self._prepare is None:
            return image
        prepared = self._prepare(image.pixels)
        # A photograph takes a hundred times the memory of its preprocessed tensor.
        return replace(image, prepared=prepared, pixels=image.pixels.resize((1, 1)))
