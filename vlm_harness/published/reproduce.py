"""Reruns the cells of published tables.

A table is a YAML file with columns (a task and a metric each) and rows (a model, its protocol, and
one value per column). The tables of the paper are in ``leaderboard/paper/``.

published: my-table
columns:
  - {task: mmvp, metric: pair_accuracy, chance: 25.0}
rows:
  - {name: LLaVA-1.5-7B, model: llava, protocol: generate, values: [25.3]}
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vlm_harness import paths
from vlm_harness.backends.resolve import family, resolve
from vlm_harness.errors import HarnessError, InputError, TooManyErrors
from vlm_harness.metrics import METRICS
from vlm_harness.metrics.display import scale
from vlm_harness.protocols.protocol import PROTOCOLS
from vlm_harness.published.tables import TableCell
from vlm_harness.runs.evaluator import evaluate
from vlm_harness.runs.plan import check_images
from vlm_harness.runs.state import Progress
from vlm_harness.specs.registry import Registry
from vlm_harness.tasks.task import load_task
from vlm_harness.types import ResultRow


@dataclass(frozen=True)
class Measured:
    """A published cell and its measured value in the same unit, or why there is none."""

    cell: TableCell
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    problem: str | None = None
    command: str | None = None
    """The best of several commands, selected for this cell on the test samples."""

    @property
    def agrees(self) -> bool | None:
        """Whether the published number is within the interval, allowing for its rounding."""
        published = self.cell.value
        if published is None or self.low is None or self.high is None:
            return None
        rounding = 0.5 * 10.0**-self.cell.digits + 1e-9
        return self.low - rounding <= published <= self.high + rounding


# --- availability -------------------------------------------------------------------------------


class Here:
    """Which cells can be run on this machine; each model and task is checked once."""

    def __init__(self, registry: Registry, data_dir: str | None = None) -> None:
        self.registry = registry
        self.root = paths.data_dir(data_dir)
        self._models: dict[str, InputError | None] = {}
        self._data: dict[tuple[str, bool], InputError | None] = {}

    def model(self, cell: TableCell) -> InputError | None:
        """Error if the weights of a cell's model are neither local nor available on the hub."""
        assert cell.model is not None
        if cell.model not in self._models:
            spec = resolve(cell.model, self.registry)
            self._models[cell.model] = _problem(lambda: family(spec).check(spec))
        return self._models[cell.model]

    def data(self, cell: TableCell) -> InputError | None:
        """Error if a cell's data cannot be read; images are only checked for existence."""
        model = None if cell.model is None else resolve(cell.model, self.registry)
        key = (cell.task, model is None or family(model).reads_images)
        if key not in self._data:
            self._data[key] = _problem(lambda: self._read(*key))
        return self._data[key]

    def problems(self, cell: TableCell) -> list[InputError]:
        return [problem for problem in (self.model(cell), self.data(cell)) if problem]

    def _read(self, name: str, images: bool) -> None:
        spec = self.registry.task(name)
        if spec.dataset.reader == "hub":
            return  # checking would download it
        task = load_task(spec, self.registry, self.root)
        if images:
            check_images(task, self.root)


def _problem(check: Any) -> InputError | None:
    try:
        check()
    except InputError as error:
        return error
    return None


# --- measuring ----------------------------------------------------------------------------------


def measure(
    wanted: Sequence[TableCell],
    here: Here,
    *,
    progress: Progress | None = None,
    argv: Sequence[str] | None = None,
    best_command: bool = False,
    **options: Any,
) -> tuple[list[Measured], TooManyErrors | None]:
    """Evaluate all cells that can be run; ``options`` are passed to ``evaluate``.

    With ``best_command``, all commands of each task are run and each cell gets the value of its
    best command: the convention of the paper's Tables 12 and 13 (appendix B.5).

    A cell that cannot be measured reports why and does not stop the others. The returned error is
    the first of a run that stopped because too many samples failed.
    """
    groups: dict[tuple[str, str, str], dict[str, None]] = {}
    outcomes: dict[TableCell, Measured] = {}
    for cell in wanted:
        problems = here.problems(cell)
        if problems:
            text = "; ".join(problem.message for problem in problems)
            outcomes[cell] = Measured(cell, problem=text)
        else:
            key = (cell.protocol, cell.decoding, str(cell.model))
            groups.setdefault(key, {})[cell.task] = None
    stopped: TooManyErrors | None = None
    found: dict[tuple[str, ...], list[ResultRow] | HarnessError] = {}
    for protocol, how, models, tasks in _calls(groups):
        labels = {resolve(model, here.registry).model: model for model in models}
        keys = [(protocol, how, model, task) for model in models for task in tasks]
        try:
            run = evaluate(
                models,
                tasks,
                protocol=[protocol],
                decoding=[how],
                command=["all"] if best_command and PROTOCOLS.get(protocol).uses_prompt else [],
                data_dir=str(here.root),
                progress=progress,
                argv=argv,
                **options,
            )
        except (InputError, TooManyErrors) as error:
            found.update(dict.fromkeys(keys, error))
            if isinstance(error, TooManyErrors):
                stopped = stopped or error
        else:
            for row in run.results:
                of_cell = (protocol, how, labels[row.model], row.task)
                rows = found.setdefault(of_cell, [])
                if isinstance(rows, list):
                    rows.append(row)
    for cell in wanted:
        if cell not in outcomes:
            rows_or_error = found[cell.protocol, cell.decoding, str(cell.model), cell.task]
            outcomes[cell] = _outcome(cell, rows_or_error)
    return [outcomes[cell] for cell in wanted], stopped


def _calls(
    groups: dict[tuple[str, str, str], dict[str, None]],
) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """(protocol, decoding, models, tasks) of each run; models with the same tasks share a run."""
    together: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for (protocol, how, model), tasks in groups.items():
        together.setdefault((protocol, how, tuple(tasks)), []).append(model)
    for (protocol, how, names), models in together.items():
        yield protocol, how, models, list(names)


def _outcome(cell: TableCell, rows: list[ResultRow] | HarnessError) -> Measured:
    if isinstance(rows, HarnessError):
        return Measured(cell, problem=str(rows).splitlines()[0])
    better = min if METRICS.declared(cell.metric).direction == "lower" else max
    valued = [row for row in rows if row.metrics[cell.metric].value is not None]
    best = better(valued or rows, key=lambda row: row.metrics[cell.metric].value or 0.0)
    metric = best.metrics[cell.metric]
    value, low, high = (
        None if each is None else scale(cell.metric) * each
        for each in (metric.value, metric.ci_low, metric.ci_high)
    )
    command = best.command if len(rows) > 1 else None
    return Measured(cell, value, low, high, metric.n, command=command)
