"""Option orders: which permutations of a sample's options are shown.

An order is a tuple of canonical indexes by shown position: ``(1, 0)`` shows the second option
first.
"""

import hashlib
import random
from typing import Literal

from vlm_harness.types import Sample

OrderMode = Literal["fixed", "both", "cyclic", "random"]
ORDER_MODES: tuple[OrderMode, ...] = ("fixed", "both", "cyclic", "random")
Order = tuple[int, ...]


def orders(mode: OrderMode, sample: Sample, seed: int) -> list[Order]:
    """The orders that a sample is asked in.

    ``fixed``: as in the task. ``both``: as in the task, and reversed. ``cyclic``: every rotation.
    ``random``: one permutation, drawn from the run's seed and the sample's group, so that the
    images of a pair (and of a set) share it (paper, A.1) and neither batch size nor the order of
    work can change it.
    """
    canonical = tuple(range(len(sample.options)))
    if mode == "fixed":
        return [canonical]
    if mode == "both":
        return list(dict.fromkeys([canonical, canonical[::-1]]))
    if mode == "cyclic":
        return [canonical[start:] + canonical[:start] for start in canonical]
    digest = hashlib.sha256(f"{seed}\0{sample.group}".encode()).digest()
    shuffled = list(canonical)
    random.Random(int.from_bytes(digest[:8], "big")).shuffle(shuffled)
    return [tuple(shuffled)]
