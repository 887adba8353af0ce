"""Pairs of images that one encoder finds similar and another finds different.

This is how MMVP was built (Tong et al. 2024; paper, section 3.1): a cosine above 0.95 by CLIP and
below 0.6 by DINOv2. Two images that a self-supervised model separates are likely to differ visibly,
so CLIP's agreement on them is erroneous.
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
"""Rows per block: the cosines of a block take 8 MB in float64, per encoder."""


class Mined(NamedTuple):
    """Two images by index, the lower one first, and both cosines."""

    a: int
    b: int
    similar: float
    different: float


@dataclass(frozen=True)
class Found:
    pairs: Sequence[Mined]
    """Sorted by the difference between the two cosines, largest first."""
    n: int
    """Number of pairs that pass both thresholds, including those beyond ``top``."""


def images_below(folder: Path) -> list[ImageRef]:
    """All image files of a folder and its subfolders, sorted by name.

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
            f"expected at least two image files, found {len(names)}",
            where=folder,
            hint=f"Image files end in {listing(SUFFIXES)}.",
        )
    return [file_ref(folder, name) for name in names]


def first_copies(sha256: Sequence[str]) -> list[int]:
    """Indices without duplicate files: a duplicate would repeat every pair of its original."""
    first: dict[str, int] = {}
    for index, digest in enumerate(sha256):
        first.setdefault(digest, index)
    return list(first.values())


def mine(
    similar: Embeddings,
    different: Embeddings,
    *,
    similar_above: float = 0.95,
    different_below: float = 0.6,
    top: int = 1000,
    block: int = BLOCK,
) -> Found:
    """The ``top`` pairs of rows with the largest difference between their two cosines.

    Beyond the embeddings, memory holds a few blocks and ``top`` pairs, however many pairs pass. The
    time is that of computing all cosines: some minutes for 100,000 images on a few cores.
    """
    # The smallest entry is dropped first; among equals, the one that comes later in the folder.
    heap: list[tuple[float, int, int, float, float]] = []
    n = 0
    for rows, columns, near, far in _blocks(
        similar, different, similar_above, different_below, block
    ):
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
    similar: Embeddings, different: Embeddings, above: float, below: float, size: int
) -> Iterator[Block]:
    """Pairs that pass both thresholds, block by block: rows, columns and both cosines (float32)."""
    import torch

    def cosines(part: Embeddings, other: Embeddings) -> torch.Tensor:
        # Summed in float64 and rounded once, so that a cosine does not depend on its block.
        return (torch.from_numpy(part).double() @ torch.from_numpy(other).double().T).float()

    starts = range(0, len(similar), size)
    for i in starts:
        for j in starts[i // size :]:
            near = cosines(similar[i : i + size], similar[j : j + size])
            mask = near > above
            if i == j:
                mask = mask.triu(1)  # each pair once, no image with itself
            if not mask.any():
                continue  # the usual case: skip the product of the second encoder
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
    """Write one JSON object per line: ``a``, ``b`` (paths below the folder) and both cosines."""
    lines = (
        {
            "a": names[pair.a],
            "b": names[pair.b],
            "cosine_alike": round(pair.similar, 6),
            "cosine_different": round(pair.different, 6),
        }
        for pair in pairs
    )
    write_text(path, "".join(to_json(line) + "\n" for line in lines))
