"""The evaluator, as stages: resolve, plan, open the run folder, execute, summarise, write.

One grid of models x tasks x protocols x commands x decodings runs in one process; each model is
loaded once, and only if it has something left to do.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vlm_harness.backends.interface import Backend, LoadOptions
from vlm_harness.backends.resolve import check_args, family, resolve
from vlm_harness.errors import InputError
from vlm_harness.runs.batches import (
    BatchSize,
    GpuMemory,
)
from vlm_harness.runs.cache import LOADED, Cache, CacheUse, cache_file
from vlm_harness.runs.execute import execute, n_workers
from vlm_harness.runs.folder import RunFolder
from vlm_harness.runs.interrupts import Interrupts
from vlm_harness.runs.plan import Plan, plan
from vlm_harness.runs.state import Progress, State
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import ModelSpec, RunConfig
from vlm_harness.types import Model


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
        state = State(planned, folder, progress, interrupts or Interrupts())
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
                workers = n_workers(planned.config.workers, device, reads)
                known = used.of(model, infos[model.model], progress.warn) if used else None
                state.begin(model.model)
                execute(backend, todo, state, size, workers, known)
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
