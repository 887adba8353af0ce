"""Thumbnails of a run's images for an HTML page, within a limit of bytes."""

import base64
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vlm_harness import images
from vlm_harness.errors import SampleError
from vlm_harness.types import ImageRef

SIZES = (448, 384, 320, 256, 224, 192, 160, 128, 96, 64)
"""Length of the longer side in pixels; images are never enlarged."""
PROBES = 24
"""Number of images that are scaled to estimate how many bytes a size takes."""
CHUNK = 64
"""Number of images in one element of the page."""
_Small = Callable[[Iterable["Shown"], int], Iterator[bytes | str]]
Progress = Callable[[int, int], None]
"""Called with the number of images done and their total."""
NOT_THERE = "image not found"
CHANGED = "the image file has changed since the run (checksum mismatch)"
NO_ROOM = "left out to keep the page within --max-size"


@dataclass(frozen=True)
class Shown:
    """An image that a log refers to."""

    path: str
    sha256: str | None
    root: str = ""
    """Where the run found its data: the same path may be a different file elsewhere."""


@dataclass(frozen=True)
class Thumbnails:
    """
    Attributes:
        size: maximum length of the longer side in pixels; 0 if there are no thumbnails.
        chunks: base64-encoded WebP files, one per line and ``CHUNK`` per chunk except the last.
        entries: the path of each image, and either its ``number`` in the chunks or a ``note``.
    """

    size: int
    chunks: Sequence[str]
    entries: Sequence[Mapping[str, object]]

    @property
    def n(self) -> int:
        return sum("number" in entry for entry in self.entries)


def make(
    shown: Sequence[Shown],
    refs: Mapping[tuple[str, str], ImageRef],
    budget: int,
    largest: int = SIZES[0],
    progress: Progress = lambda done, total: None,
) -> Thumbnails:
    """Make thumbnails of the largest size at which all fit into ``budget`` bytes.

    If they fit at no size, images are left out at the smallest one.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:

        def small(some: Iterable[Shown], size: int) -> Iterator[bytes | str]:
            return pool.map(lambda each: _small(each, refs.get((each.root, each.path)), size), some)

        size = _size(shown, small, budget, largest) if shown else 0
        texts: list[str] = []
        entries: list[dict[str, object]] = []
        for each, found in zip(shown, small(shown, size), strict=True):
            entry: dict[str, object] = {"path": each.path}
            if isinstance(found, str):
                entry["note"] = found
            else:
                text = base64.b64encode(found).decode()
                budget -= len(text) + 1
                if budget < 0:
                    entry["note"] = NO_ROOM
                else:
                    entry["number"] = len(texts)
                    texts.append(text)
            entries.append(entry)
            progress(len(entries), len(shown))
    chunks = ["\n".join(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)]
    return Thumbnails(size if texts else 0, chunks, entries)


def _size(shown: Sequence[Shown], small: _Small, budget: int, largest: int) -> int:
    probes = shown[:: max(1, len(shown) // PROBES)]
    sizes = [size for size in SIZES if size <= largest] or [largest]
    for size in sizes:
        found = [len(each) for each in small(probes, size) if isinstance(each, bytes)]
        # 10% more, because images that were not probed may be larger.
        if sum(found) * 4 / 3 * 1.1 * len(shown) <= budget * len(probes):
            return size
    return sizes[-1]


def _small(shown: Shown, ref: ImageRef | None, size: int) -> bytes | str:
    """A WebP file, or the reason why there is none."""
    if ref is None or not ref.exists():
        return NOT_THERE
    try:
        data = images.read(ref)
        if shown.sha256 not in (None, hashlib.sha256(data).hexdigest()):
            return CHANGED
        pixels = images.decode(data, ref, min_side=size)
    except SampleError as error:
        return str(error)
    pixels.thumbnail((size, size), reducing_gap=2.0)
    stream = io.BytesIO()
    pixels.save(stream, "WEBP", quality=78, method=1)
    return stream.getvalue()
