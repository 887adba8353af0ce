"""What goes into a batch: in which order, how much of it, and whether it was too much."""

import gc
import sys
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

from vlm_harness.backends.interface import PROMPTS_A_ROW, Backend, SharesRows
from vlm_harness.runs.plan import Item
from vlm_harness.types import ImageRef


def sort(items: list[Item]) -> None:
    """In place: what is about the same images lies together, whatever task asks, in one kind.

    Images of one group lie side by side, since their prompts are often the same; long prompts come
    first, beside others that are as long: little is padding, and too large a batch shows at once.
    """
    groups: dict[str, tuple[int, int]] = {}
    images: dict[tuple[ImageRef, ...], tuple[int, ...]] = {}
    for item in items:
        refs = item.request.images
        if refs not in images:
            length = len(item.request.prompt)
            group = groups.setdefault(item.sample.group, (-length, len(groups)))
            images[refs] = *group, len(images)
    items.sort(
        key=lambda item: (
            *batch_kind(item),
            *images[item.request.images],
            item.request.prompt,
        )
    )


def batch_kind(item: Item) -> tuple[str, str, int]:
    """Only requests of one kind, decoding and length can go into one batch."""
    request = item.request
    return request.kind, request.decoding, request.max_new_tokens


def batch_end(
    backend: Backend, queue: Sequence[Item], start: int, most: int, batch_size: int
) -> tuple[int, int]:
    """Where ``batch_size`` rows are full (a request each, but where the backend shares rows), and
    how many they are.
    """
    row_of = backend.row_of if isinstance(backend, SharesRows) else lambda request: object()
    prompts: dict[Hashable, int] = {}
    n_rows = 0
    stop = min(most, len(queue))
    for end in range(start, stop):
        row = row_of(queue[end].request)
        begins = prompts.get(row, 0) % PROMPTS_A_ROW == 0
        if begins and n_rows == batch_size:
            return end, batch_size
        n_rows += begins
        prompts[row] = prompts.get(row, 0) + 1
    return max(start, stop), n_rows


class BatchSize:
    """How many rows a batch has: what was asked, else what the memory of the GPU turns out to hold.

    ``auto`` begins with the family's own and doubles while twice what a batch took beside the
    weights would fit into a CUDA device. What was too much is not tried again.
    """

    MOST = 512

    def __init__(
        self,
        asked: int | Literal["auto"],
        default: int,
        share_if_doubled: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.size = default if asked == "auto" else asked
        self._grows = asked == "auto"
        self._share_if_doubled = share_if_doubled

    def went_well(self, n_rows: int) -> None:
        """After a batch: only one that was full tells what fits."""
        if self._grows and n_rows >= self.size and 2 * self.size <= self.MOST:
            share = self._share_if_doubled()
            if share is not None and share < 0.9:
                self.size *= 2

    def was_too_much(self, n_rows: int) -> None:
        self.size = max(1, n_rows // 2)
        self._grows = False


class GpuMemory:
    """Of CUDA devices: what a loaded model takes, and what its batches take beside that."""

    def __init__(self, device: str) -> None:
        torch = sys.modules.get("torch")  # present only where a backend needed it
        on_gpu = torch is not None and device.startswith("cuda") and torch.cuda.is_available()
        self._cuda: Any = torch.cuda if torch is not None and on_gpu else None
        if self._cuda is None:
            return
        gc.collect()  # the model before
        self._cuda.empty_cache()
        self._weights = []
        for number in range(self._cuda.device_count()):
            self._cuda.reset_peak_memory_stats(number)
            self._weights.append(self._cuda.memory_allocated(number))

    def share_if_doubled(self) -> float | None:
        """Highest share of a device that batches of twice the size would take; None without one."""
        if self._cuda is None:
            return None
        shares: list[float] = []
        for number, weights in enumerate(self._weights):
            peak = self._cuda.max_memory_allocated(number)
            total = self._cuda.get_device_properties(number).total_memory
            shares.append((weights + 2 * (peak - weights)) / total)
        return max(shares)


def is_out_of_memory(error: Exception) -> bool:
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return True
    said = str(error).lower()
    marks = ("out of memory", "alloc_failed", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(mark in said for mark in marks)
