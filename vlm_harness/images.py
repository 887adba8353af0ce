"""Reading images: bytes, their checksum, and RGB pixels; ahead of need, in threads.

A file becomes what the official loaders of benchmarks (``Image.open(...).convert("RGB")``) make of
it, but for two kinds that these get wrong, and for limits:

| file | pixels |
|---|---|
| EXIF orientation | left as stored; turned upright where the task says ``exif: apply`` |
| grey, palette, CMYK | to RGB |
| transparent | the colours stored below the transparency |
| animated, several pages | the first |
| grey of 16 bits | scaled to 8; Pillow cuts it off at 255, which is nearly all white |
| 32 bits, floating point | an error: what is white is not known |
| another ending than its format's | read as what it is |
| cut short, empty, no image | an error: never half a picture |
| larger than ``MAX_PIXELS`` or ``MAX_BYTES`` | an error, before it is decoded |
| a format that is not in ``FORMATS`` | an error: some are programs (EPS runs Ghostscript) |
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

from vlm_harness.errors import SampleError
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
    """PIL image, mode RGB; of one pixel where there is ``prepared``, which stands for it."""
    sha256: str
    """Of the file's bytes as stored."""
    path: str
    prepared: Any = None
    """What the backend's ``preprocess`` made of the pixels, where it has one."""


def file_ref(root: Path, relative: str) -> ImageRef:
    """An image file below ``root``."""
    path = root / relative

    def size() -> int | None:
        return path.stat().st_size if path.is_file() else None

    return ImageRef(path=relative, read=path.read_bytes, exists=path.is_file, size=size)


def read(ref: ImageRef) -> bytes:
    """The bytes as stored.

    Raises:
        SampleError: they cannot be read, or are too many.
    """
    try:
        size = ref.size()
        if size is not None and size > MAX_BYTES:
            raise SampleError(f"image {ref.path}: {size:,} bytes; at most {MAX_BYTES:,} are read")
        return ref.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SampleError(f"image {ref.path}: {reason}") from None


def checksum(ref: ImageRef) -> str:
    """SHA-256 of the file's bytes, which are read but not decoded. Raises as ``read``."""
    return hashlib.sha256(read(ref)).hexdigest()


def load(ref: ImageRef) -> LoadedImage:
    """Read and decode.

    Raises:
        SampleError: the bytes cannot be read, are no image, or one that is not taken.
    """
    data = read(ref)
    return LoadedImage(decode(data, ref), hashlib.sha256(data).hexdigest(), ref.path)


def decode(data: bytes, ref: ImageRef, about: int | None = None) -> "Image":
    """The pixels of an image whose bytes are known.

    Args:
        about: a JPEG may come out smaller, its sides still longer than this; it is decoded faster.

    Raises:
        SampleError: the bytes are no image, or one that is not taken.
    """
    try:
        return _decode(data, ref.upright, about)
    # Decoders raise what they like at broken files: struct.error, IndexError, SyntaxError, ...
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise SampleError(f"image {ref.path}: {reason}") from None


def _decode(data: bytes, upright: bool, about: int | None) -> "Image":
    """Raises any exception, with a message for the user where it is a SampleError."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise SampleError("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError:
        raise SampleError(f"the file is no image of {', '.join(_formats())}") from None
    except Image.DecompressionBombError:
        raise SampleError(f"more than {MAX_PIXELS:,} pixels, which are not decoded") from None
    with image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise SampleError(f"{width} x {height} pixels; at most {MAX_PIXELS:,} are decoded")
        if image.mode in ("I", "F") and image.format != "PPM":  # whose greys of 16 bits are so
            raise SampleError("its pixels have 32 bits, and what is white is not known")
        if about is not None:
            image.draft(image.mode, (about, about))
        turned = ImageOps.exif_transpose(image) if upright else image
        return _to_eight_bits(turned).convert("RGB")


@cache
def _formats() -> tuple[str, ...]:
    """Those of ``FORMATS`` that Pillow was built with."""
    from PIL import Image

    Image.init()
    # Of sizes and of broken metadata: what comes of either is decided above.
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
    """Reads images for a backend; remembers the last few, and every checksum.

    Args:
        keep: how many are remembered; more where a batch has more.
        workers: threads that read ahead; PIL and torch let others run while they work.
        prepare: called with the pixels of every image, in the thread that read it.
    """

    def __init__(
        self,
        keep: int = 32,
        workers: int = 0,
        prepare: "Callable[[Image], Any] | None" = None,
    ) -> None:
        self._least = self._keep = keep
        self._next: frozenset[ImageRef] = frozenset()
        self._prepare = prepare
        self._recent: dict[ImageRef, LoadedImage] = {}
        self._coming: dict[ImageRef, Future[LoadedImage]] = {}
        self._passed: set[ImageRef] = set()  # decoded before, or not needed at all
        self._pool = ThreadPoolExecutor(workers) if workers else None
        self._lock = threading.Lock()  # a batch to come is made ready in another thread
        self.sha256: dict[str, str] = {}
        """By path, of every file that was read."""

    def __enter__(self) -> "ImageLoader":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def prefetch(self, refs: Iterable[ImageRef]) -> None:
        """Begin to read the images of the next batch; those read before are passed over.

        What was begun for the batch before, and never asked for, is dropped.
        """
        if self._pool is None:
            return
        wanted = dict.fromkeys(refs)
        with self._lock:
            for ref in self._coming.keys() - wanted.keys() - self._next:
                del self._coming[ref]
            self._next = frozenset(wanted)
            self._keep = max(self._least, len(wanted))
            for ref in wanted:
                if ref not in self._passed and ref not in self._coming:
                    self._coming[ref] = self._pool.submit(self._load, ref)

    def pass_over(self, ref: ImageRef) -> None:
        """Do not read this image ahead: what is to be computed from it is known."""
        self._passed.add(ref)

    def get(self, ref: ImageRef) -> LoadedImage:
        """The decoded image.

        Raises:
            SampleError: it cannot be read.
        """
        with self._lock:
            picture = self._recent.pop(ref, None)
            coming = self._coming.pop(ref, None)
        if picture is None:
            picture = self._load(ref) if coming is None else coming.result()
        with self._lock:
            self._recent[ref] = picture
            self._passed.add(ref)
            self.sha256[ref.path] = picture.sha256
            while len(self._recent) > self._keep:
                del self._recent[next(iter(self._recent))]
        return picture

    def checksum(self, ref: ImageRef) -> str:
        """As the function of that name; each file is read once."""
        if ref.path not in self.sha256:
            self.sha256[ref.path] = checksum(ref)
        return self.sha256[ref.path]

    def _load(self, ref: ImageRef) -> LoadedImage:
        picture = load(ref)
        if self._prepare is None:
            return picture
        prepared = self._prepare(picture.pixels)
        # A photograph takes a hundred times the memory of what is made of it.
        return replace(picture, prepared=prepared, pixels=picture.pixels.resize((1, 1)))
