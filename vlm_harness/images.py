"""Reading images: bytes, their checksum, and RGB pixels; ahead of need, in threads."""

import hashlib
import io
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        SampleError: they cannot be read.
    """
    try:
        return ref.read()
    except (OSError, ValueError) as error:
        raise SampleError(f"image {ref.path}: {error}") from None


def load(ref: ImageRef) -> Picture:
    """Read and decode.

    Raises:
        SampleError: the bytes cannot be read, or are no image.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    data = read(ref)
    try:
        with Image.open(io.BytesIO(data)) as image:
            # Peers hand files to the processor as they lie: a sideways EXIF photograph would then
            # be judged left-right where it is up-down.
            pixels = ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError:
        raise SampleError(f"image {ref.path}: the file is no image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SampleError(f"image {ref.path}: {error}") from None
    return Picture(pixels, hashlib.sha256(data).hexdigest(), ref.path)


class Pictures:
    """Reads images for a backend; remembers the last few, and every checksum.

    Args:
        keep: how many are remembered, and how many at most are read ahead.
        workers: threads that read ahead; PIL and torch let others run while they work.
        prepare: called with the pixels of every image, in the thread that read it.
    """

    def __init__(
        self,
        keep: int = 32,
        workers: int = 0,
        prepare: "Callable[[Image], Any] | None" = None,
    ) -> None:
        self._keep = keep
        self._prepare = prepare
        self._recent: dict[str, Picture] = {}
        self._coming: dict[str, Future[Picture]] = {}
        self._passed: set[str] = set()  # by path: decoded before, or not needed at all
        self._pool = ThreadPoolExecutor(workers) if workers else None
        self._lock = threading.Lock()  # a batch to come is made ready in another thread
        self.sha256: dict[str, str] = {}
        """By path, of every file that was read."""

    def __enter__(self) -> "Pictures":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def ahead(self, refs: Iterable[ImageRef]) -> None:
        """Begin to read images that will be asked for next; those read before are passed over."""
        if self._pool is None:
            return
        for ref in refs:
            if len(self._coming) >= self._keep:
                return
            if ref.path not in self._passed and ref.path not in self._coming:
                self._coming[ref.path] = self._pool.submit(self._load, ref)

    def pass_over(self, ref: ImageRef) -> None:
        """Do not read this image ahead: what is to be computed from it is known."""
        self._passed.add(ref.path)

    def get(self, ref: ImageRef) -> Picture:
        """The decoded image.

        Raises:
            SampleError: it cannot be read.
        """
        with self._lock:
            picture = self._recent.pop(ref.path, None)
            coming = self._coming.pop(ref.path, None)
        if picture is None:
            picture = self._load(ref) if coming is None else coming.result()
        with self._lock:
            self._recent[ref.path] = picture
            self._passed.add(ref.path)
            self.sha256[ref.path] = picture.sha256
            while len(self._recent) > self._keep:
                del self._recent[next(iter(self._recent))]
        return picture

    def checksum(self, ref: ImageRef) -> str:
        """SHA-256 of the file's bytes, which are read but not decoded.

        Raises:
            SampleError: they cannot be read.
        """
        if ref.path not in self.sha256:
            self.sha256[ref.path] = hashlib.sha256(read(ref)).hexdigest()
        return self.sha256[ref.path]

    def _load(self, ref: ImageRef) -> Picture:
        picture = load(ref)
        if self._prepare is None:
            return picture
        return replace(picture, prepared=self._prepare(picture.pixels))
