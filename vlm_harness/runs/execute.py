"""Sends requests to a backend in batches, and logs every response."""

import os
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, islice
from numbers import Real
from typing import Any

from vlm_harness.backends.interface import (
    Backend,
    PreparesBatches,
    PreprocessesImages,
    RecallsValues,
)
from vlm_harness.deadline import TimedOut, deadline
from vlm_harness.errors import InputError, SampleError
from vlm_harness.images import ImageLoader
from vlm_harness.runs.batches import (
    BatchSize,
    batch_end,
    batch_kind,
    is_out_of_memory,
)
from vlm_harness.runs.cache import KEYS_PER_QUERY, ModelCache
from vlm_harness.runs.plan import Item
from vlm_harness.runs.state import RunState
from vlm_harness.types import OptionScore, Request, Response


def execute(
    backend: Backend,
    items: Sequence[Item],
    state: RunState,
    size: BatchSize,
    workers: int,
    cache: ModelCache | None,
    computed: bool,
) -> None:
    """Evaluate items in batches, and pass every response to ``state``.

    Args:
        computed: whether the model computes its responses. If so, every request must get one;
            recorded responses may be missing.
    """
    preprocess = backend.preprocess if isinstance(backend, PreprocessesImages) else None
    with (
        ImageLoader(workers=workers, prepare=preprocess) as loader,
        _Prefetcher(backend, workers, state.progress.warn) as prefetcher,
    ):
        if cache is not None:
            items = _reuse_cached(backend, items, cache, state, loader)
        for _, group in groupby(items, key=batch_kind):
            queue = list(group)
            max_requests = len(queue)
            start = 0
            next_batch: tuple[int, int] | None = None  # end and rows of the prefetched batch
            while start < len(queue):
                end, n_rows = next_batch or batch_end(
                    backend, queue, start, start + max_requests, size.size
                )
                requests = [item.request for item in queue[start:end]]
                prepared = prefetcher.take()
                next_batch = batch_end(backend, queue, end, end + max_requests, size.size)
                next_requests = [item.request for item in queue[end : next_batch[0]]]
                loader.prefetch(ref for request in next_requests for ref in request.all_images)
                prefetcher.prepare(next_requests, loader)
                try:
                    with state.interrupts.deferred("this batch"):
                        responses = _respond(backend, requests, loader, state, computed, prepared)
                        for item, response in zip(queue[start:end], responses, strict=True):
                            state.add(item, response, loader.sha256)
                        if cache is not None and not isinstance(backend, RecallsValues):
                            cache.store(requests, responses, loader)
                except _OutOfMemory:
                    # Limit requests, not only rows: a row can hold many requests.
                    max_requests = len(requests) // 2
                    size.on_out_of_memory(n_rows)
                    state.progress.warn(f"out of memory: retrying with batch size {max_requests}")
                    prefetcher.take()
                    next_batch = None
                    continue
                state.check_errors()
                size.on_success(n_rows)
                start = end


class _Prefetcher:
    """Prepares the next batch in a thread, if the backend supports it (``PreparesBatches``)."""

    def __init__(self, backend: Backend, workers: int, warn: Callable[[str], None]) -> None:
        self._backend = backend if isinstance(backend, PreparesBatches) else None
        self._pool = ThreadPoolExecutor(1) if self._backend is not None and workers else None
        self._pending: Future[Any] | None = None
        self._warn = warn

    def __enter__(self) -> "_Prefetcher":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def prepare(self, requests: Sequence[Request], loader: ImageLoader) -> None:
        if requests and self._pool is not None and self._backend is not None:
            self._pending = self._pool.submit(self._backend.prepare, requests, loader)

    def take(self) -> Any:
        """The prepared next batch; None if nothing was prepared."""
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        error = pending.exception()
        if error is None:
            return pending.result()
        # Input errors are raised again when the batch is computed; report all others here.
        if not isinstance(error, InputError | SampleError) and self._pool is not None:
            self._warn(f"batch prefetching disabled: {type(error).__name__}: {error}")
            self._pool.shutdown(wait=False)
            self._pool = None
        return None


def _reuse_cached(
    backend: Backend,
    items: Sequence[Item],
    cache: ModelCache,
    state: RunState,
    loader: ImageLoader,
) -> Sequence[Item]:
    """Log the cached answers of earlier runs; returns the remaining items."""
    if isinstance(backend, RecallsValues):
        backend.recall(cache, [item.request for item in items], loader)
        return items
    remaining = []
    queue = iter(items)
    while chunk := list(islice(queue, KEYS_PER_QUERY)):
        responses = cache.responses([item.request for item in chunk], loader)
        for item, response in zip(chunk, responses, strict=True):
            if response is None:
                remaining.append(item)
            else:
                state.add(item, response, loader.sha256)
    return remaining


def n_workers(requested: int | None, device: str, reads_images: bool) -> int:
    """Number of prefetch threads: as requested, else chosen for the device."""
    if not reads_images:
        return 0
    if requested is not None:
        return requested
    # A model on the CPU uses all cores; prefetch threads would only slow it down.
    return 0 if device == "cpu" else min(8, os.cpu_count() or 1)


class _OutOfMemory(Exception):
    pass


def _checked(request: Request, response: object, computed: bool) -> Response | None:
    """The response, or an error if it cannot be scored and logged."""
    if response is None and not computed:
        return None
    if not isinstance(response, Response):
        return Response(error=f"expected a Response, but the model returned {_type(response)}")
    if response.error is not None:
        return response if isinstance(response.error, str) else Response(error=repr(response.error))
    problem = _problem(request, response)
    return response if problem is None else Response(error=problem)


def _problem(request: Request, response: Response) -> str | None:
    if not isinstance(response.finish_reason, str | None):
        return f"finish_reason is {_type(response.finish_reason)}, not str"
    if not isinstance(response.over_limit, bool):
        return f"over_limit is {_type(response.over_limit)}, not bool"
    if request.kind == "generate":
        if response.scores is not None:
            return "expected text, but the model returned scores"
        text = response.text
        return None if isinstance(text, str | None) else f"text is {_type(text)}, not str"
    n = len(request.candidates)
    if response.scores is not None and len(response.scores) != n:
        return f"the model returned {len(response.scores)} scores for {n} candidates"
    for score in response.scores or ():
        if not isinstance(score, OptionScore):
            return f"expected an OptionScore per candidate, but the model returned {_type(score)}"
        if not isinstance(score.score, Real):
            return f"a score is {_type(score.score)}, not float"
    if not isinstance(response.pair_cosine, Real | None):
        return f"pair_cosine is {_type(response.pair_cosine)}, not float"
    return None


def _type(value: object) -> str:
    return type(value).__name__


def _respond(
    backend: Backend,
    requests: Sequence[Request],
    loader: ImageLoader,
    state: RunState,
    computed: bool,
    prepared: Any = None,
) -> Sequence[Response | None]:
    """Compute one batch. If it fails, retry its requests individually to isolate bad samples."""
    limit = state.planned.config.timeout
    try:
        with deadline(limit and limit * len(requests)):
            responses = (
                backend.respond_to(prepared)
                if prepared is not None and isinstance(backend, PreparesBatches)
                else backend.respond(requests, loader)
            )
        if not isinstance(responses, Sequence) or isinstance(responses, str):
            raise RuntimeError(f"expected a list of responses, found {_type(responses)}")
        if len(responses) != len(requests):
            raise RuntimeError(f"{len(responses)} responses to {len(requests)} requests")
        return [_checked(*each, computed) for each in zip(requests, responses, strict=True)]
    except (InputError, KeyboardInterrupt):
        raise
    except TimedOut:
        if len(requests) == 1:
            return [Response(error=f"timed out: no answer within {limit:g} s")]
    except SampleError as error:
        if len(requests) == 1:
            return [Response(error=str(error))]
    # Model libraries can raise anything; one bad sample must not stop the run.
    except Exception as error:
        if is_out_of_memory(error):
            if len(requests) > 1:
                raise _OutOfMemory from None
            return [Response(error=f"out of memory: {error}")]
        if len(requests) == 1:
            state.folder.log_traceback(traceback.format_exc())
            return [Response(error=f"{type(error).__name__}: {error}")]
        state.log_once(traceback.format_exc())  # the cause may affect, and slow down, every batch
    return [
        response
        for request in requests
        for response in _respond(backend, [request], loader, state, computed)
    ]
