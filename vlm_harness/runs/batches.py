"""Forms batches: order of the requests, batch size, and out-of-memory handling."""

import gc
import sys
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

from vlm_harness.backends.interface import MAX_PROMPTS_PER_ROW, Backend, SharesRows
from vlm_harness.runs.plan import Item
from vlm_harness.types import ImageRef


def sort(items: list[Item]) -> None:
    """Sort items in place so that requests about the same images are adjacent, across tasks.

    Requests of one kind stay together. Images of a group are adjacent, since their prompts are
    often the same. Groups with long prompts come first, next to prompts of similar length: this
    reduces padding, and a batch size that does not fit into memory fails immediately.
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
    """Requests in a batch must share kind, decoding and maximum length."""
    request = item.request
    return request.kind, request.decoding, request.max_new_tokens


def batch_end(
    backend: Backend, queue: Sequence[Item], start: int, end_limit: int, batch_size: int
) -> tuple[int, int]:
    """End index of the batch that begins at ``start``, and its number of rows.

    The batch has at most ``batch_size`` rows, and ends at ``end_limit`` at the latest. A row is one
    request, or several if the backend shares rows.
    """
    row_of = backend.row_of if isinstance(backend, SharesRows) else lambda request: object()
    prompts: dict[Hashable, int] = {}
    n_rows = 0
    stop = min(end_limit, len(queue))
    for end in range(start, stop):
        row = row_of(queue[end].request)
        is_new_row = prompts.get(row, 0) % MAX_PROMPTS_PER_ROW == 0
        if is_new_row and n_rows == batch_size:
            return end, batch_size
        n_rows += is_new_row
        prompts[row] = prompts.get(row, 0) + 1
    return max(start, stop), n_rows


class BatchSize:
    """Number of rows per batch: as requested, or adapted to the memory of the GPU.

    ``auto`` starts with the default of the model family, and doubles as long as twice the
    activation memory of a batch would fit on the CUDA device. After an out-of-memory error it does
    not grow again.
    """

    MAX = 512

    def __init__(
        self,
        requested: int | Literal["auto"],
        default: int,
        share_if_doubled: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.size = default if requested == "auto" else requested
        self._grows = requested == "auto"
        self._share_if_doubled = share_if_doubled

    def on_success(self, n_rows: int) -> None:
        """Grow after a batch if possible; only a full batch shows what fits."""
        if self._grows and n_rows >= self.size and 2 * self.size <= self.MAX:
            share = self._share_if_doubled()
            if share is not None and share < 0.9:
                self.size *= 2

    def on_out_of_memory(self, n_rows: int) -> None:
        """Retry with half the rows of the failed batch, and stop growing."""
        self.size = max(1, n_rows // 2)
        self._grows = False


class GpuMemory:
    """CUDA memory: the share of a loaded model, and the peak of its batches."""

    def __init__(self, device: str) -> None:
        torch = sys.modules.get("torch")  # present only where a backend needed it
        on_gpu = torch is not None and device.startswith("cuda") and torch.cuda.is_available()
        self._cuda: Any = torch.cuda if torch is not None and on_gpu else None
        if self._cuda is None:
            return
        gc.collect()  # the previous model
        self._cuda.empty_cache()
        self._weights = []
        for number in range(self._cuda.device_count()):
            self._cuda.reset_peak_memory_stats(number)
            self._weights.append(self._cuda.memory_allocated(number))

    def share_if_doubled(self) -> float | None:
        """Highest share of a device's memory that a doubled batch would need; None without CUDA."""
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
    message = str(error).lower()
    marks = ("out of memory", "alloc_failed", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(mark in message for mark in marks)
