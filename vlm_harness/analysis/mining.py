"""Pairs of images that one encoder finds alike and another finds different.

The recipe that MMVP was made by (Tong et al. 2024; paper, section 3.1): a cosine above 0.95 by CLIP
and below 0.6 by DINOv2. Two images that a self-supervised model holds apart are likely to differ
in what can be seen, so that CLIP's agreement on them is erroneous.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlm_harness.backends.dual_encoder import Embeddings
from vlm_harness.errors import InputError, listing
from vlm_harness.files import to_json, write_text
from vlm_harness.images import SUFFIXES, file_ref
from vlm_harness.types import ImageRef

BLOCK = 1024
"""Rows of a block: its cosines take 8 MB in float64, once for each encoder."""


class Mined(NamedTuple):
    """Two images by their numbers, the lower first."""

    a: int
    b: int
    alike: float
    different: float


@dataclass(frozen=True)
class Found:
    pairs: Sequence[Mined]
    """Those that the encoders disagree on most come first."""
    n: int
    """How many there are, of which ``pairs`` are the first."""


def images_below(folder: Path) -> list[ImageRef]:
    """All image files of a folder and the folders in it, by name.

    Raises:
        InputError: no such folder, or fewer than two images in it.
    """
    if not folder.is_dir():
        raise InputError("there is no such folder", where=folder)
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if len(names) < 2:
        raise InputError(
            f"the folder holds {len(names)} image files, and a pair needs two",
            where=folder,
            hint=f"Image files end in {listing(SUFFIXES)}.",
        )
    return [file_ref(folder, name) for name in names]


def first_copies(sha256: Sequence[str]) -> list[int]:
    """One of each file: copies are no pair, and would repeat every pair of their original."""
    first: dict[str, int] = {}
    for index, digest in enumerate(sha256):
        first.setdefault(digest, index)
    return list(first.values())


def mine(
    alike: Embeddings,
    different: Embeddings,
    *,
    alike_above: float = 0.95,
    different_below: float = 0.6,
    top: int = 1000,
    block: int = BLOCK,
) -> Found:
    """The ``top`` pairs of rows with the largest difference between their two cosines.

    Memory beyond the embeddings is that of a few blocks and of ``top`` pairs, whatever their number
    is. Time is that of all cosines: some minutes for 100,000 images on a few cores.
    """
    # The least pair of the heap goes first; of equals, that which comes later in the folder.
    heap: list[tuple[float, int, int, float, float]] = []
    n = 0
    for rows, columns, near, far in _blocks(alike, different, alike_above, different_below, block):
        n += len(rows)
        gaps = near.astype(np.float64) - far
        least = heap[0][0] if len(heap) == top else -np.inf
        if len(gaps) > top:
            least = max(least, np.partition(gaps, -top)[-top])
        for k in np.flatnonzero(gaps >= least):
            entry = (gaps[k], -rows[k], -columns[k], near[k], far[k])
            if len(heap) < top:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)
    pairs = [
        Mined(-int(a), -int(b), float(near), float(far))
        for _, a, b, near, far in sorted(heap, reverse=True)
    ]
    return Found(pairs, n)


Block = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _blocks(
    alike: Embeddings, different: Embeddings, above: float, below: float, size: int
) -> Iterator[Block]:
    """Pairs that pass both thresholds, block by block: rows, columns, both cosines (float32)."""
    import torch

    def cosines(part: Embeddings, other: Embeddings) -> torch.Tensor:
        # Summed in float64 and rounded once: a cosine does not depend on the block it falls into.
        return (torch.from_numpy(part).double() @ torch.from_numpy(other).double().T).float()

    starts = range(0, len(alike), size)
    for i in starts:
        for j in starts[i // size :]:
            near = cosines(alike[i : i + size], alike[j : j + size])
            mask = near > above
            if i == j:
                mask = mask.triu(1)  # each pair once, and no image with itself
            if not mask.any():
                continue  # mostly so, which saves the second encoder's product
            far = cosines(different[i : i + size], different[j : j + size])
            mask &= far < below
            rows, columns = mask.nonzero(as_tuple=True)
            if len(rows):
                yield (
                    (rows + i).numpy(),
                    (columns + j).numpy(),
                    near[mask].numpy(),
                    far[mask].numpy(),
                )


def write_pairs(pairs: Sequence[Mined], names: Sequence[str], path: Path) -> None:
    """One JSON object a line: ``a``, ``b`` (paths below the folder) and both cosines."""
    lines = (
        {
            "a": names[pair.a],
            "b": names[pair.b],
            "cosine_alike": round(pair.alike, 6),
            "cosine_different": round(pair.different, 6),
        }
        for pair in pairs
    )
    write_text(path, "".join(to_json(line) + "\n" for line in lines))
