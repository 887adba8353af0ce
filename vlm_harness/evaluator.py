"""The evaluator, as stages: resolve, plan, open the run folder, execute, summarise, write.

One grid of models x tasks x protocols x commands x decodings runs in one process; each model is
loaded once, and only if it has something left to do.
"""

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vlm_harness.backends import Backend, LoadOptions, Pictures
from vlm_harness.batches import BatchSize, GpuMemory, batch_end, batch_kind, is_out_of_memory, sort
from vlm_harness.cache import AT_ONCE, LOADED, Cache, CacheUse, ModelCache, cache_file
from vlm_harness.deadline import TimedOut, deadline
from vlm_harness.errors import InputError, SampleError, TooManyErrors
from vlm_harness.interrupts import Interrupts
from vlm_harness.models import check_args, family, resolve
from vlm_harness.plan import Cell, Item, Plan, plan
from vlm_harness.protocols import answer
from vlm_harness.registry import Registry
from vlm_harness.results import for_metrics, summarise
from vlm_harness.runlog import Line, RunFolder
from vlm_harness.specs import ModelSpec, RunConfig
from vlm_harness.types import Model, Request, Response, Variant

Key = tuple[Any, ...]
ALL_FAIL = 16
"""Where so many samples of a model fail before one succeeds, the model is to blame."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path
    results: list[dict[str, Any]]
    n_new: int
    """Lines written by this call; zero where the run was finished before."""
    cache: dict[str, Any] | None = None
    """Under ``--cache``: ``path``, ``bytes``, and how many answers (of dual encoders, embeddings)
    were ``asked`` of it and ``known``."""


class Progress:
    """What the evaluator tells while it works. The default says nothing."""

    def start(self, run: Path, total: int, done: int) -> None: ...

    def loading(self, model: str) -> None: ...

    def advance(self, cell: Cell) -> None: ...

    def warn(self, message: str) -> None: ...


def evaluate(
    models: Sequence[str | ModelSpec | Backend],
    tasks: Sequence[str],
    *,
    progress: Progress | None = None,
    argv: Sequence[str] | None = None,
    **options: Any,
) -> Run:
    """Run models on tasks. ``options`` are the fields of ``RunConfig``.

    ``models`` are names as for ``--model``, specs, or loaded backends of your own.

    Raises:
        InputError: anything unfit, before weights are loaded where it can be known by then.
        TooManyErrors: more samples failed than ``max_errors`` allows, or all of them.
    """
    names = [model for model in models if isinstance(model, str)]
    try:
        config = RunConfig(model=names, tasks=list(tasks), **options)
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(str(part) for part in detail["loc"])
        raise InputError(f"{detail['msg']} (found {detail['input']!r})", where=where) from None
    return evaluate_config(config, models, progress=progress, argv=argv)


def evaluate_config(
    config: RunConfig,
    models: Sequence[str | ModelSpec | Backend] | None = None,
    *,
    progress: Progress | None = None,
    interrupts: Interrupts | None = None,
    argv: Sequence[str] | None = None,
) -> Run:
    """Run what a configuration says; ``models``, where given, stand for those that it names."""
    registry = Registry.standard(config.include_path)
    specs: list[ModelSpec] = []
    loaded: dict[str, Backend] = {}
    for model in dict.fromkeys(config.model) if models is None else models:  # twice is meant once
        if isinstance(model, str):
            specs.append(resolve(model, registry, config.model_args))
        elif isinstance(model, ModelSpec):
            check_args(model)
            specs.append(model)
        else:
            info = model.info()
            specs.append(ModelSpec(model=info.name, backend=info.backend, checkpoint=LOADED))
            loaded[info.name] = model
    interrupts = interrupts or Interrupts()
    with interrupts.held("planning"):
        planned = plan(config, registry, specs, loaded)
    return run(planned, progress or Progress(), argv or sys.argv, loaded, interrupts)


def run(
    planned: Plan,
    progress: Progress,
    argv: Sequence[str],
    loaded: Mapping[str, Backend] | None = None,
    interrupts: Interrupts | None = None,
) -> Run:
    """Execute a plan: what an earlier try finished is kept, the rest is done."""
    with ExitStack() as stack:
        folder = stack.enter_context(RunFolder(planned, argv))
        state = _State(planned, folder, progress, interrupts or Interrupts())
        progress.start(folder.path, state.total, state.n_done)
        if state.n_done == state.total:  # nothing to do: the record of how it was done stays
            healed = folder.heal()
            results = state.write_results()
            if folder.finished:
                folder.keep_sums(healed)
            else:  # stopped after its last line
                folder.write_manifest({}, finished=True)
            return Run(folder.path, results, 0)
        infos: dict[str, Model] = {}
        used = None
        if planned.config.cache:
            used = CacheUse(stack.enter_context(closing(Cache(cache_file()))))
        try:
            for model in planned.models:
                todo = state.todo.pop(model.model, [])
                if not todo:
                    continue
                backend = (loaded or {}).get(model.model)
                if backend is None:
                    backend = load(model, planned, progress)
                infos[model.model] = backend.info()
                folder.check_same_dtype(infos[model.model])
                folder.write_manifest(infos)
                folder.heal()
                device = infos[model.model].device or "cpu"
                size = BatchSize(
                    planned.config.batch_size,
                    family(model).default_batch,
                    GpuMemory(device).doubled,
                )
                reads = family(model).reads_images
                workers = _workers(planned.config.workers, device, reads)
                known = used.of(model, infos[model.model], progress.warn) if used else None
                state.begin(model.model)
                _execute(backend, todo, state, size, workers, known)
                # The next model needs the memory that this one holds.
                del backend
            state.check_not_all_failed()
        finally:
            if infos:
                state.write_results()
        folder.write_manifest(infos, finished=True)
        return Run(folder.path, state.results(), state.n_new, used.numbers() if used else None)


def load(model: ModelSpec, planned: Plan, progress: Progress) -> Backend:
    """The backend of a model of a plan, with its weights."""
    config = planned.config
    progress.loading(model.model)
    options = LoadOptions(
        device=config.device,
        dtype=config.dtype,
        trust_remote_code=config.trust_remote_code,
        data_dir=planned.data_dir,
    )
    return family(model).load(model, options)


@dataclass
class _State:
    """What is done, what is left, and the results so far."""

    planned: Plan
    folder: RunFolder
    progress: Progress
    interrupts: Interrupts
    todo: dict[str, list[Item]] = field(default_factory=dict)
    """What is left for each model, what can be shared lying together."""
    total: int = 0
    n_new: int = 0
    n_errors: int = 0
    first_error: str | None = None
    failing: str | None = None
    """The model of which every sample failed so far, in this call."""
    n_failing: int = 0
    first_failing: str | None = None
    batch_failed: bool = False

    def __post_init__(self) -> None:
        cells = [(cell, list(cell.items())) for cell in self.planned.cells]
        kept = self.folder.finished_lines(
            [cell.variant for cell, _ in cells], {item.key for _, items in cells for item in items}
        )
        self.folder.check_same_images(kept.values())
        self._rows: dict[Variant, dict[str, Any]] = {}
        self._lines: dict[Variant, dict[Key, Line]] = {}
        self._left: dict[Variant, int] = {}
        for cell, items in cells:
            lines = self._lines[cell.variant] = {}
            left = []
            self.total += len(items)
            for item in items:
                if item.key in kept:
                    self.folder.check_fits(kept[item.key], item)
                    lines[item.key] = for_metrics(kept[item.key], cell.task.spec)
                else:
                    left.append(item)
            self._left[cell.variant] = len(left)
            self.todo.setdefault(cell.variant.model, []).extend(left)
        self.n_done = sum(map(len, self._lines.values()))
        for items in self.todo.values():
            sort(items)
        self.limit = _allowed_errors(self.planned.config.max_errors, self.total)

    def add(self, item: Item, response: Response | None, sums: Mapping[str, str]) -> None:
        """Score and log one response."""
        cell = item.cell
        self._left[cell.variant] -= 1
        if response is not None:
            outcome = answer(
                cell.variant.protocol, response, item.prompt.shown, item.prompt.order, cell.use
            )
            if outcome.status == "error":
                self._count_error(item, outcome.detail)
            else:
                self.failing = None
            line = self.folder.write(item, response, outcome, sums)
            self._lines[cell.variant][item.key] = for_metrics(line, cell.task.spec)
            self.n_new += 1
        self.progress.advance(cell)
        if self._left[cell.variant] == 0:
            self._summarise(cell)
            self.folder.write_results(self.results())

    def check_errors(self) -> None:
        """Stop where more samples failed than is allowed; asked after a batch is written."""
        if self.failing and self.n_failing >= ALL_FAIL and self.limit < self.total:
            raise TooManyErrors(
                f"stopped: all of the first {self.n_failing} samples of {self.failing} failed\n"
                f"The first: {self.first_failing}\nThe log is in {self.folder.path}; with "
                "--max-errors 100% the others are asked all the same."
            )
        if self.n_errors > self.limit:
            raise TooManyErrors(
                f"stopped: {self.n_errors} samples failed, more than --max-errors "
                f"{self.planned.config.max_errors} allows\nThe first: {self.first_error}\n"
                f"What was finished is kept in {self.folder.path}"
            )

    def log_once(self, text: str) -> None:
        """Of a batch that failed: the first, since every batch may."""
        if not self.batch_failed:
            self.batch_failed = True
            self.folder.log_traceback(f"a batch, of which each sample is asked alone:\n{text}")

    def begin(self, model: str) -> None:
        self.failing, self.n_failing, self.first_failing = model, 0, None

    def check_not_all_failed(self) -> None:
        for cell in self.planned.cells:
            lines = self._lines[cell.variant].values()
            if lines and all(line["status"] == "error" for line in lines):
                variant = cell.variant
                raise TooManyErrors(
                    f"every sample failed of {variant.model} on {variant.task} "
                    f"({variant.protocol})\nThe first: {next(iter(lines))['error']}\n"
                    f"The log is in {self.folder.path}"
                )

    def write_results(self) -> list[dict[str, Any]]:
        """All rows, those of unfinished cells too."""
        for cell in self.planned.cells:
            if cell.variant not in self._rows:
                self._summarise(cell)
        self.folder.write_results(self.results())
        return self.results()

    def results(self) -> list[dict[str, Any]]:
        cells = self.planned.cells
        return [self._rows[cell.variant] for cell in cells if cell.variant in self._rows]

    def _summarise(self, cell: Cell) -> None:
        self._rows[cell.variant] = summarise(
            cell.task.spec,
            cell.variant,
            self._lines[cell.variant].values(),
            cell.expected,
            limit=self.planned.config.limit,
            seed=self.planned.config.seed,
        )

    def _count_error(self, item: Item, reason: str | None) -> None:
        self.n_errors += 1
        self.n_failing += 1
        said = f"{item.cell.variant.task}/{item.sample.id}: {reason}"
        if self.first_failing is None:
            self.first_failing = said
        if self.first_error is None:
            self.first_error = said
            self.progress.warn(self.first_error)


def _execute(
    backend: Backend,
    items: Sequence[Item],
    state: _State,
    size: BatchSize,
    workers: int,
    known: ModelCache | None,
) -> None:
    """Send items through a backend in batches, and hand every response on as it comes."""
    preprocess = getattr(backend, "preprocess", None)
    with (
        Pictures(workers=workers, prepare=preprocess) as pictures,
        _Ahead(backend, workers, state.progress.warn) as ahead,
    ):
        if known is not None:
            items = _recall(backend, items, known, state, pictures)
        for _, group in groupby(items, key=batch_kind):
            queue = list(group)
            most = len(queue)
            start = 0
            coming: tuple[int, int] | None = None  # the batch that is made ready meanwhile
            while start < len(queue):
                end, n_rows = coming or batch_end(backend, queue, start, start + most, size.size)
                requests = [item.request for item in queue[start:end]]
                prepared = ahead.take()
                coming = batch_end(backend, queue, end, end + most, size.size)
                following = [item.request for item in queue[end : coming[0]]]
                pictures.ahead(ref for request in following for ref in request.looked_at)
                ahead.prepare(following, pictures)
                try:
                    with state.interrupts.held("this batch"):
                        responses = _respond(backend, requests, pictures, state, prepared)
                        for item, response in zip(queue[start:end], responses, strict=True):
                            state.add(item, response, pictures.sha256)
                        if known is not None and not hasattr(backend, "recall"):
                            known.keep(requests, responses, pictures)
                except _OutOfMemory:
                    # A row may be many requests, and one of them too much by itself.
                    most = len(requests) // 2
                    size.was_too_much(n_rows)
                    state.progress.warn(f"out of memory: going on with batches of {most}")
                    ahead.take()
                    coming = None
                    continue
                state.check_errors()
                size.went_well(n_rows)
                start = end


class _Ahead:
    """Has a backend that can ``prepare`` batches do so in a thread, one batch ahead."""

    def __init__(self, backend: Backend, workers: int, warn: Callable[[str], None]) -> None:
        self._prepare: Callable[..., Any] | None = getattr(backend, "prepare", None)
        self._pool = ThreadPoolExecutor(1) if self._prepare is not None and workers else None
        self._coming: Future[Any] | None = None
        self._warn = warn

    def __enter__(self) -> "_Ahead":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def prepare(self, requests: Sequence[Request], pictures: Pictures) -> None:
        if requests and self._pool is not None and self._prepare is not None:
            self._coming = self._pool.submit(self._prepare, requests, pictures)

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
    state: _State,
    pictures: Pictures,
) -> Sequence[Item]:
    """Hand answers of earlier runs on; returns the items that are left to be asked."""
    if hasattr(backend, "recall"):
        backend.recall(known, [item.request for item in items], pictures)
        return items
    left = []
    remaining = iter(items)
    while some := list(islice(remaining, AT_ONCE)):
        responses = known.responses([item.request for item in some], pictures)
        for item, response in zip(some, responses, strict=True):
            if response is None:
                left.append(item)
            else:
                state.add(item, response, pictures.sha256)
    return left


def _workers(asked: int | None, device: str, reads_images: bool) -> int:
    if not reads_images:
        return 0
    if asked is not None:
        return asked
    # A model on the CPU has every core for itself; what others take slows it by as much.
    return 0 if device == "cpu" else min(8, os.cpu_count() or 1)


class _OutOfMemory(Exception):
    pass


def _fitting(request: Request, response: Response | None) -> Response | None:
    """The response; an error where it has not as many scores as there were candidates."""
    n = len(request.candidates)
    if response is None or response.scores is None or len(response.scores) == n:
        return response
    return Response(error=f"the model gave {len(response.scores)} scores for {n} candidates")


def _respond(
    backend: Any,
    requests: Sequence[Request],
    pictures: Pictures,
    state: _State,
    prepared: Any = None,
) -> Sequence[Response | None]:
    """One batch; where it fails, each request alone, so that one bad sample costs only itself."""
    limit = state.planned.config.timeout
    try:
        with deadline(limit and limit * len(requests)):
            responses: Sequence[Response | None] = (
                backend.respond(requests, pictures)
                if prepared is None
                else backend.respond_to(prepared)
            )
        if len(responses) != len(requests):
            raise RuntimeError(f"{len(responses)} responses to {len(requests)} requests")
        return list(map(_fitting, requests, responses))
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
        for response in _respond(backend, [request], pictures, state)
    ]


def _allowed_errors(text: str, total: int) -> float:
    """``N``, or ``P%`` of all lines; a share allows at least one, also of a small run."""
    if not text.endswith("%"):
        return float(text)
    share = float(text[:-1]) / 100
    return max(1.0, total * share) if share else 0.0
