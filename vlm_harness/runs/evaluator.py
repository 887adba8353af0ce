"""The evaluator, as stages: resolve, plan, open the run folder, execute, summarise, write.

One grid of models x tasks x protocols x commands x decodings runs in one process; each model is
loaded once, and only if it has something left to do.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal, Never, cast

from pydantic import ValidationError

from vlm_harness.backends.family import LOADED
from vlm_harness.backends.interface import Backend, LoadOptions
from vlm_harness.backends.resolve import check_args, family, from_object, resolve
from vlm_harness.errors import InputError, not_found
from vlm_harness.logs.run import Run
from vlm_harness.logs.schema import Results
from vlm_harness.runs.batches import BatchSize, GpuMemory
from vlm_harness.runs.cache import Cache, CacheUse, cache_file
from vlm_harness.runs.execute import execute, n_workers
from vlm_harness.runs.folder import RunFolder
from vlm_harness.runs.interrupts import Interrupts
from vlm_harness.runs.plan import Plan, plan
from vlm_harness.runs.state import Progress, State
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import Dtype, ModelSpec, RunConfig
from vlm_harness.types import Labels, Model


class FinishedRun(Run):
    """A run that was just finished.

    Attributes:
        n_new: lines written by this call; zero where the run was finished before.
        cache: under ``--cache``: ``path``, ``bytes``, and how many answers (of dual encoders,
            embeddings) were ``asked`` of it and ``known``.
    """

    def __init__(
        self, path: Path, results: Results, n_new: int, cache: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(path)
        self._results, self.n_new, self.cache = results, n_new, cache

    @property
    def results(self) -> Results:
        return self._results


AnyModel = str | Path | ModelSpec | Backend


def evaluate(
    models: AnyModel | Iterable[AnyModel] = (),
    tasks: str | Iterable[str] = (),
    *,
    protocol: str | Iterable[str] = (),
    command: str | Iterable[str] = (),
    decoding: str | Iterable[str] = "greedy",
    order: Literal["fixed", "both", "cyclic", "random"] | None = None,
    images: Literal["normal", "none", "swapped"] = "normal",
    labels: Labels = "corrected",
    limit: int | None = None,
    samples: str | Iterable[str] = (),
    batch_size: int | Literal["auto"] = "auto",
    workers: int | None = None,
    device: str | None = None,
    dtype: Dtype = "auto",
    seed: int = 0,
    data_dir: str | Path | None = None,
    include_path: str | Path | Iterable[str | Path] = (),
    output_dir: str | Path = "results",
    run_id: str | None = None,
    fresh: bool = False,
    cache: bool = False,
    model_args: Mapping[str, Any] | None = None,
    max_errors: int | str = "10%",
    timeout: float | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    argv: Sequence[str] | None = None,
    **unknown: Never,
) -> FinishedRun:
    """Evaluate models on tasks, as ``vlm-harness run`` does.

    Every argument is the option of that name; those that the command takes several times take a
    list. The same call finds its run again: an unfinished run is resumed, a finished one is read.

    Args:
        models: names as for ``--model``, model specs, or loaded backends; one or several.
        tasks: names, groups or globs; one or several.
        protocol: ``similarity``, ``generate``, ``choice``, ``likelihood``; the first that the model
            and the task support where none is given.
        command: names of the task's commands, or ``all``; its first where none is given.
        decoding: ``NAME[:k=v,...]``.
        order: which permutations of the options are shown; the task's where None.
        images: ``none`` for the blind baseline, ``swapped`` to exchange the images of a pair.
        labels: whether published label corrections are applied.
        limit: at most so many samples per task, in complete groups.
        samples: ids of samples; no others are evaluated.
        batch_size: rows per batch.
        workers: threads that read images ahead; as the device allows where None.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; the best that there is where None.
        dtype: ``auto`` is float32 on a CPU and the checkpoint's own on a GPU.
        seed: for random orders and bootstrap intervals.
        data_dir: where the data are; ``$VLM_HARNESS_DATA`` or the user's cache where None.
        include_path: folders or files with more task, model and prompt files.
        output_dir: where run folders are.
        run_id: name of the run folder; models, tasks and a hash where None.
        fresh: overwrite an earlier run of this name.
        cache: keep answers for other runs, and use those kept.
        model_args: fields of the model file, or arguments of its backend.
        max_errors: stop after so many failed samples, or such a share of them.
        timeout: seconds after which a sample counts as failed.
        trust_remote_code: run code that is part of a checkpoint.
        progress: told while the run goes; nothing is printed where None.
        argv: the command line that the manifest records.

    Returns:
        The run: ``results``, ``lines()``, ``to_pandas()``, ``manifest``, ``path``.

    Raises:
        InputError: anything unfit, before weights are loaded where it can be known by then.
        TooManyErrors: more samples failed than ``max_errors`` allows, or all of them.
    """
    options = {name: value for name, value in locals().items() if name in RunConfig.model_fields}
    for name in unknown:
        known = [*RunConfig.model_fields, "models", "progress", "argv"]
        known.remove("model")
        raise not_found(f"evaluate() has no argument {name!r}", name, known)
    chosen = _models(models)
    options["model"] = [model for model in chosen if isinstance(model, str)]
    options["model_args"] = {} if model_args is None else model_args
    if progress is not None and not isinstance(progress, Progress):
        raise InputError("expected a vlm_harness.Progress", where="progress")
    try:
        config = RunConfig(**{name: _plain(value) for name, value in options.items()})
    except ValidationError as error:
        detail = error.errors()[0]
        where = str(detail["loc"][0])
        raise InputError(f"{detail['msg']} (found {detail['input']!r})", where=where) from None
    return evaluate_config(config, chosen, progress=progress, argv=argv)


def _models(models: object) -> list[AnyModel]:
    """One model or several, as a list; a path is as its text."""
    one = isinstance(models, str | Path | ModelSpec | Backend)
    if not one and (not isinstance(models, Iterable) or isinstance(models, Mapping | bytes)):
        raise _no_model(models)
    found: list[AnyModel] = []
    for model in [models] if one else cast(Iterable[object], models):
        if isinstance(model, Path):
            found.append(str(model))
        elif isinstance(model, type) or not isinstance(model, str | ModelSpec | Backend):
            raise _no_model(model)
        elif not isinstance(model, str) or model not in found:  # twice is meant once
            found.append(model)
    return found


def _no_model(found: object) -> InputError:
    name = f"the class {found.__name__}" if isinstance(found, type) else repr(found)[:100]
    return InputError(
        f"{name} is no model",
        where="models",
        hint="A model is a name, a checkpoint folder, a ModelSpec, or an object with info() and "
        "respond(requests, loader); or pass a list of those.",
    )


def _plain(value: Any) -> Any:
    """Paths as text, and collections as lists, as a configuration file has them."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_plain(each) for each in value]
    return value


def evaluate_config(
    config: RunConfig,
    models: Sequence[AnyModel] | None = None,
    *,
    progress: Progress | None = None,
    interrupts: Interrupts | None = None,
    argv: Sequence[str] | None = None,
) -> FinishedRun:
    """Run what a configuration says; ``models``, where given, stand for those that it names."""
    registry = Registry.standard(config.include_path)
    specs: list[ModelSpec] = []
    loaded: dict[str, Backend] = {}
    for model in _models(config.model) if models is None else models:
        if isinstance(model, str):
            specs.append(resolve(model, registry, config.model_args))
        elif isinstance(model, ModelSpec):
            check_args(model)
            specs.append(model)
        elif isinstance(model, Backend):
            specs.append(from_object(model))
            loaded[specs[-1].model] = model
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
) -> FinishedRun:
    """Execute a plan: what an earlier try finished is kept, the rest is done."""
    with ExitStack() as stack:
        folder = stack.enter_context(RunFolder(planned, argv))
        state = State(planned, folder, progress, interrupts or Interrupts())
        progress.start(folder.path, state.total, state.n_done)
        if state.n_done == state.total and folder.finished:
            _check_same_objects(planned, folder.path)
        if state.n_done == state.total:  # nothing to do: the record of how it was done stays
            repaired = folder.repair()
            results = state.write_results()
            if folder.finished:
                folder.update_checksums(repaired)
            else:  # stopped after its last line
                folder.write_manifest({}, finished=True)
            return FinishedRun(folder.path, results, 0)
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
                folder.repair()
                device = infos[model.model].device or "cpu"
                size = BatchSize(
                    planned.config.batch_size,
                    family(model).default_batch,
                    GpuMemory(device).share_if_doubled,
                )
                reads = family(model).reads_images
                workers = n_workers(planned.config.workers, device, reads)
                known = used.of(model, infos[model.model], progress.warn) if used else None
                state.begin(model.model)
                computed = family(model).answers == "computed"
                execute(backend, todo, state, size, workers, known, computed)
                # The next model needs the memory that this one holds.
                del backend
            state.check_not_all_failed()
        finally:
            if infos:
                state.write_results()
        folder.write_manifest(infos, finished=True)
        return FinishedRun(
            folder.path, state.results(), state.n_new, used.numbers() if used else None
        )


def _check_same_objects(planned: Plan, path: Path) -> None:
    """Refuse to read a finished run for an object that may have changed since."""
    for model in planned.models:
        if model.checkpoint == LOADED and model.revision is None:
            raise InputError(
                f"the run is finished, and whether {model.model} is still the same object cannot "
                "be known",
                where=path,
                hint="Read it with open_run(), evaluate again with fresh=True, or let info() give "
                "a revision, which names another run when it changes.",
            )


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
