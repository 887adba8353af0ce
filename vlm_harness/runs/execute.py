"""Sends requests through a backend in batches, and hands on every response as it comes."""

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
from vlm_harness.runs.cache import AT_ONCE, ModelCache
from vlm_harness.runs.plan import Item
from vlm_harness.runs.state import State
from vlm_harness.types import OptionScore, Request, Response


def execute(
    backend: Backend,
    items: Sequence[Item],
    state: State,
    size: BatchSize,
    workers: int,
    known: ModelCache | None,
    computed: bool,
) -> None:
    """Send items through a backend in batches, and hand every response on as it comes.

    A model that computes its responses owes one to every request; of recorded ones, some may be
    missing.
    """
    preprocess = backend.preprocess if isinstance(backend, PreprocessesImages) else None
    with (
        ImageLoader(workers=workers, prepare=preprocess) as loader,
        _Prefetcher(backend, workers, state.progress.warn) as prefetcher,
    ):
        if known is not None:
            items = _recall(backend, items, known, state, loader)
        for _, group in groupby(items, key=batch_kind):
            queue = list(group)
            most = len(queue)
            start = 0
            coming: tuple[int, int] | None = None  # the batch that is made ready meanwhile
            while start < len(queue):
                end, n_rows = coming or batch_end(backend, queue, start, start + most, size.size)
                requests = [item.request for item in queue[start:end]]
                prepared = prefetcher.take()
                coming = batch_end(backend, queue, end, end + most, size.size)
                following = [item.request for item in queue[end : coming[0]]]
                loader.prefetch(ref for request in following for ref in request.all_images)
                prefetcher.prepare(following, loader)
                try:
                    with state.interrupts.held("this batch"):
                        responses = _respond(backend, requests, loader, state, computed, prepared)
                        for item, response in zip(queue[start:end], responses, strict=True):
                            state.add(item, response, loader.sha256)
                        if known is not None and not isinstance(backend, RecallsValues):
                            known.keep(requests, responses, loader)
                except _OutOfMemory:
                    # A row may be many requests, and one of them too much by itself.
                    most = len(requests) // 2
                    size.was_too_much(n_rows)
                    state.progress.warn(f"out of memory: going on with batches of {most}")
                    prefetcher.take()
                    coming = None
                    continue
                state.check_errors()
                size.went_well(n_rows)
                start = end


class _Prefetcher:
    """Has a backend that can ``prepare`` batches do so in a thread, one batch ahead."""

    def __init__(self, backend: Backend, workers: int, warn: Callable[[str], None]) -> None:
        self._backend = backend if isinstance(backend, PreparesBatches) else None
        self._pool = ThreadPoolExecutor(1) if self._backend is not None and workers else None
        self._coming: Future[Any] | None = None
        self._warn = warn

    def __enter__(self) -> "_Prefetcher":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def prepare(self, requests: Sequence[Request], loader: ImageLoader) -> None:
        if requests and self._pool is not None and self._backend is not None:
            self._coming = self._pool.submit(self._backend.prepare, requests, loader)

    def take(self) -> Any:
        """What was made of the batch that is next by now; None where nothing was."""
        coming, self._coming = self._coming, None
        if coming is None:
            return None
        error = coming.exception()
        if error is None:
            return coming.result()
        # Bad input is told again where it is asked for; anything else would go on unseen.
        if not isinstance(error, InputError | SampleError) and self._pool is not None:
            self._warn(f"batches are not made ready ahead: {type(error).__name__}: {error}")
            self._pool.shutdown(wait=False)
            self._pool = None
        return None


def _recall(
    backend: Backend,
    items: Sequence[Item],
    known: ModelCache,
    state: State,
    loader: ImageLoader,
) -> Sequence[Item]:
    """Hand answers of earlier runs on; returns the items that are left to be asked."""
    if isinstance(backend, RecallsValues):
        backend.recall(known, [item.request for item in items], loader)
        return items
    left = []
    remaining = iter(items)
    while some := list(islice(remaining, AT_ONCE)):
        responses = known.responses([item.request for item in some], loader)
        for item, response in zip(some, responses, strict=True):
            if response is None:
                left.append(item)
            else:
                state.add(item, response, loader.sha256)
    return left


def n_workers(asked: int | None, device: str, reads_images: bool) -> int:
    if not reads_images:
        return 0
    if asked is not None:
        return asked
    # A model on the CPU has every core for itself; what others take slows it by as much.
    return 0 if device == "cpu" else min(8, os.cpu_count() or 1)


class _OutOfMemory(Exception):
    pass


def _checked(request: Request, response: object, computed: bool) -> Response | None:
    """The response; an error where it is none that can be scored and logged."""
    if response is None and not computed:
        return None
    if not isinstance(response, Response):
        return Response(error=f"expected a Response, and the model gave {_type(response)}")
    if response.error is not None:
        return response if isinstance(response.error, str) else Response(error=repr(response.error))
    problem = _problem(request, response)
    return response if problem is None else Response(error=problem)


def _problem(request: Request, response: Response) -> str | None:
    if request.kind == "generate":
        if response.scores is not None:
            return "expected text, and the model gave scores"
        text = response.text
        return None if isinstance(text, str | None) else f"text is {_type(text)}, not str"
    n = len(request.candidates)
    if response.scores is not None and len(response.scores) != n:
        return f"the model gave {len(response.scores)} scores for {n} candidates"
    for score in response.scores or ():
        if not isinstance(score, OptionScore):
            return f"expected an OptionScore per candidate, and the model gave {_type(score)}"
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
    state: State,
    computed: bool,
    prepared: Any = None,
) -> Sequence[Response | None]:
    """One batch; where it fails, each request alone, so that one bad sample costs only itself."""
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
    # A model's library can raise anything; the run must outlive a sample that it cannot take.
    except Exception as error:
        if is_out_of_memory(error):
            if len(requests) > 1:
                raise _OutOfMemory from None
            return [Response(error=f"out of memory: {error}")]
        if len(requests) == 1:
            state.folder.log_traceback(traceback.format_exc())
            return [Response(error=f"{type(error).__name__}: {error}")]
        state.log_once(traceback.format_exc())  # it may be of the batch, and slow every other down
    return [
        response
        for request in requests
        for response in _respond(backend, [request], loader, state, computed)
    ]
