"""Option orders: the permutations in which the options of a sample are shown.

An order is a tuple with the canonical index of the option at each position: ``(1, 0)`` shows the
second option first.
"""

import hashlib
import random
from typing import Literal

from vlm_harness.types import Sample

OrderMode = Literal["fixed", "both", "cyclic", "random"]
ORDER_MODES: tuple[OrderMode, ...] = ("fixed", "both", "cyclic", "random")
Order = tuple[int, ...]


def orders(mode: OrderMode, sample: Sample, seed: int) -> list[Order]:
    """The orders in which the options of a sample are shown; one prompt per order.

    ``fixed``: as in the task. ``both``: as in the task, and reversed. ``cyclic``: every rotation.
    ``random``: one permutation, derived from the seed of the run and the group of the sample. The
    images of a pair or set therefore share it (paper, A.1), and it does not depend on batch size or
    evaluation order.
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
