"""Small pictures of a run's images for an HTML page, within a number of bytes."""

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
"""Of the longer side, in pixels; no image is made larger than it is."""
PROBES = 24
"""Images that are made small in a size to learn how many bytes it takes."""
CHUNK = 64
"""Images in one element of the page."""
_Small = Callable[[Iterable["Shown"], int], Iterator[bytes | str]]
Progress = Callable[[int, int], None]
"""Told how many images are done, of how many."""
NOT_THERE = "the image is not there"
CHANGED = "the file is not the one that was shown: its checksum differs"
NO_ROOM = "left out: the page would be larger than --max-size"


@dataclass(frozen=True)
class Shown:
    """An image that a log names."""

    path: str
    sha256: str | None
    root: str = ""
    """Where the run found its data: a path may be another file elsewhere."""


@dataclass(frozen=True)
class Thumbnails:
    """
    Attributes:
        size: longer side in pixels, at most; 0 where there are none.
        chunks: base64 of WebP files, ``CHUNK`` in each but the last, one a line.
        entries: for each image its path, and either its ``number`` in the chunks or a ``note``.
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
    """In the largest size in which all fit into ``budget`` bytes; else as many as do."""
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
        # A tenth more: those that were not looked at may be larger.
        if sum(found) * 4 / 3 * 1.1 * len(shown) <= budget * len(probes):
            return size
    return sizes[-1]


def _small(shown: Shown, ref: ImageRef | None, size: int) -> bytes | str:
    """A WebP file, or why there is none."""
    if ref is None or not ref.exists():
        return NOT_THERE
    try:
        data = images.read(ref)
        if shown.sha256 not in (None, hashlib.sha256(data).hexdigest()):
            return CHANGED
        pixels = images.decode(data, ref, about=size)
    except SampleError as error:
        return str(error)
    pixels.thumbnail((size, size), reducing_gap=2.0)
    stream = io.BytesIO()
    pixels.save(stream, "WEBP", quality=78, method=1)
    return stream.getvalue()
