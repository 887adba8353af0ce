"""The evaluator, as stages: resolve, plan, open the run folder, execute, summarise, write.

A grid of models x tasks x protocols x commands x decodings runs in one process. Each model is
loaded once, and only if it has remaining samples.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal, Never, cast

from pydantic import ValidationError

from vlm_harness.backends import hub
from vlm_harness.backends.family import LOADED
from vlm_harness.backends.interface import Backend, LoadOptions
from vlm_harness.backends.resolve import check_args, family, from_object, resolve
from vlm_harness.errors import InputError, not_found, shown
from vlm_harness.logs.run import Run
from vlm_harness.logs.schema import Results
from vlm_harness.runs.batches import BatchSize, GpuMemory
from vlm_harness.runs.cache import Cache, CacheUse, cache_file
from vlm_harness.runs.execute import execute, n_workers
from vlm_harness.runs.folder import RunFolder
from vlm_harness.runs.interrupts import Interrupts
from vlm_harness.runs.plan import Plan, plan, verify_recorded
from vlm_harness.runs.state import Progress, RunState
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import Dtype, ModelSpec, RunConfig
from vlm_harness.types import Labels, Model


class FinishedRun(Run):
    """A run that was just finished.

    Attributes:
        n_new: number of lines written by this call; zero if the run was already finished.
        cache: with ``--cache``: its ``path`` and size in ``bytes``, and how many answers (for dual
            encoders: embeddings) were looked up (``asked``) and found (``known``).
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

    Every argument is the option of the same name; repeatable options take a list. Repeating a call
    resumes an unfinished run, and reads a finished one.

    Args:
        models: one or more names as for ``--model``, model specs, or loaded backends.
        tasks: one or more names, groups or globs.
        protocol: ``similarity``, ``generate``, ``choice``, ``likelihood``; by default the first one
            that both model and task support.
        command: names of the task's commands, or ``all``; by default the first one.
        decoding: ``NAME[:k=v,...]``.
        order: which permutations of the options to show; by default the task's setting.
        images: ``none`` for the blind baseline, ``swapped`` to exchange the images of a pair.
        labels: whether published label corrections are applied.
        limit: maximum number of samples per task, in complete groups.
        samples: ids of the samples to evaluate; by default all.
        batch_size: rows per batch.
        workers: number of image prefetch threads; by default chosen for the device.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; by default the best available.
        dtype: ``auto`` is float32 on a CPU and the checkpoint's dtype on a GPU.
        seed: seed for random orders and bootstrap intervals.
        data_dir: data folder; by default ``$VLM_HARNESS_DATA`` or the user's cache folder.
        include_path: additional folders or files with task, model and prompt specs.
        output_dir: parent folder of run folders.
        run_id: name of the run folder; by default models, tasks and a hash.
        fresh: overwrite an existing run of this name.
        cache: reuse cached answers, and cache new ones.
        model_args: fields of the model spec, or arguments of its backend.
        max_errors: stop if more samples than this fail (``N`` or ``P%``).
        timeout: seconds after which a sample counts as failed.
        trust_remote_code: allow code from a checkpoint to run.
        progress: callbacks during the run; by default nothing is printed.
        argv: command line to record in the manifest.

    Returns:
        The run: ``results``, ``lines()``, ``to_pandas()``, ``manifest``, ``path``.

    Raises:
        InputError: invalid arguments, or missing data or models; raised before weights are loaded
            if possible.
        TooManyErrors: more samples failed than ``max_errors`` allows, or all samples failed.
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
        raise InputError(f"{detail['msg']} (found {shown(detail['input'])})", where=where) from None
    return evaluate_config(config, chosen, progress=progress, argv=argv)


def _models(models: object) -> list[AnyModel]:
    """One or more models as a list; paths become strings."""
    one = isinstance(models, str | Path | ModelSpec | Backend)
    if not one and (not isinstance(models, Iterable) or isinstance(models, Mapping | bytes)):
        raise _no_model(models)
    found: list[AnyModel] = []
    for model in [models] if one else cast(Iterable[object], models):
        if isinstance(model, Path):
            found.append(str(model))
        elif isinstance(model, type) or not isinstance(model, str | ModelSpec | Backend):
            raise _no_model(model)
        elif not isinstance(model, str) or model not in found:  # drop duplicate names
            found.append(model)
    return found


def _no_model(found: object) -> InputError:
    name = f"the class {found.__name__}" if isinstance(found, type) else repr(found)[:100]
    return InputError(
        f"{name} is not a model",
        where="models",
        hint="A model is a name, a checkpoint folder, a ModelSpec, or an object with info() and "
        "respond(requests, loader); or pass a list of those.",
    )


def _plain(value: Any) -> Any:
    """Convert paths to strings and collections to lists, as in a configuration file."""
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
    """Run a configuration; ``models``, if given, replace those that it names."""
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
    with interrupts.deferred("planning"):
        planned = plan(config, registry, specs, loaded)
    return run(planned, progress or Progress(), argv or sys.argv, loaded, interrupts)


def run(
    planned: Plan,
    progress: Progress,
    argv: Sequence[str],
    loaded: Mapping[str, Backend] | None = None,
    interrupts: Interrupts | None = None,
) -> FinishedRun:
    """Execute a plan. An unfinished run is resumed: only its remaining samples are evaluated."""
    with ExitStack() as stack:
        folder = RunFolder(planned, argv)
        if planned.config.fresh or not folder.begun:
            verify_recorded(planned)
        stack.enter_context(folder)
        state = RunState(planned, folder, progress, interrupts or Interrupts())
        progress.start(folder.path, state.total, state.n_done)
        if state.n_done == state.total and folder.finished:
            _check_same_objects(planned, folder.path)
        if state.n_done == state.total:  # nothing to do; keep the recorded environment
            repaired = folder.repair()
            results = state.write_results()
            if folder.finished:
                folder.update_checksums(repaired)
                folder.update_groups()
            else:  # interrupted after the last line
                folder.write_manifest({}, finished=True)
            return FinishedRun(folder.path, results, 0)
        infos: dict[str, Model] = {}
        cache_use = None
        if planned.config.cache:
            cache_use = CacheUse(stack.enter_context(closing(Cache(cache_file()))))
        try:
            for model in planned.models:
                todo = state.todo.pop(model.model, [])
                if not todo:
                    continue
                backend = (loaded or {}).get(model.model)
                if backend is None:
                    backend = load(model, planned, progress)
                infos[model.model] = backend.info()
                for note in infos[model.model].notes:
                    progress.warn(f"{model.model}: {note}")
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
                info = infos[model.model]
                cache = cache_use.for_model(model, info, progress.warn) if cache_use else None
                state.start_model(model.model)
                computed = family(model).answers == "computed"
                execute(backend, todo, state, size, workers, cache, computed)
                # Free the memory for the next model.
                del backend
            state.check_not_all_failed()
        finally:
            if infos:
                state.write_results()
        folder.write_manifest(infos, finished=True)
        return FinishedRun(
            folder.path, state.results(), state.n_new, cache_use.stats() if cache_use else None
        )


def _check_same_objects(planned: Plan, path: Path) -> None:
    """Refuse to read a finished run of a model object that may have changed since."""
    for model in planned.models:
        if model.checkpoint == LOADED and model.revision is None:
            raise InputError(
                f"the run is finished, but the object {model.model} may have changed since",
                where=path,
                hint="Read the run with open_run(), overwrite it with fresh=True, or return a "
                "revision from info(): a new revision starts a new run.",
            )


def load(model: ModelSpec, planned: Plan, progress: Progress) -> Backend:
    """Load the backend of a model, including its weights."""
    config = planned.config
    progress.loading(model.model)
    options = LoadOptions(
        device=config.device,
        dtype=config.dtype,
        trust_remote_code=config.trust_remote_code,
        data_dir=planned.data_dir,
    )
    backend = family(model).load(model, options)
    _check_commits(model, planned)
    return backend


def _check_commits(model: ModelSpec, planned: Plan) -> None:
    """Refuse a model of which a newer commit appeared between planning and loading."""
    expected = planned.commits.get(model.model, {})
    for name, commit in hub.cached_commits(family(model).repositories(model)).items():
        if expected.get(name, commit) != commit:
            raise InputError(
                f"model {model.model}: {name} changed on the hub while it was loaded "
                f"({expected[name]} -> {commit})",
                hint="Rerun the command, or pin a commit: --model-args revision=COMMIT.",
            )
