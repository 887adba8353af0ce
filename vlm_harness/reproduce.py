"""Published tables as data, and the same cells measured here.

A table is a YAML file: columns (a task and a metric each), and rows (a model, how it was asked, and
one value a column). ``leaderboard/paper/`` holds the tables of the paper.

published: my-table
columns:
  - {task: mmvp, metric: pair_accuracy, chance: 25.0}
rows:
  - {name: LLaVA-1.5-7B, model: llava, protocol: generate, values: [25.3]}
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from vlm_harness import decoding, paths, spec_check, yamlfile
from vlm_harness.errors import HarnessError, InputError, TooManyErrors, listing, suggest
from vlm_harness.evaluator import Progress, evaluate
from vlm_harness.metrics import METRICS
from vlm_harness.models import family, resolve
from vlm_harness.plan import check_images
from vlm_harness.protocols import PROTOCOLS
from vlm_harness.registry import Registry
from vlm_harness.specs import ModelSpec, Name, NamedSpec, Spec
from vlm_harness.tasks import load_task


class Column(Spec):
    """One number of every row."""

    task: Name
    metric: Name
    protocol: Name | None = Field(None, description="where it is not the row's")
    chance: float | None = Field(None, description="random chance, as printed")


class Row(Spec):
    """One line of the table, as printed."""

    name: str = Field(description="the model, as printed")
    model: str | None = Field(
        description="as for --model; null where nothing that is public gives the row again"
    )
    encoder: str | None = Field(
        None, description="what sees the image, where no model file says it (model: null)"
    )
    family: Literal["dual encoder", "mllm", "other"] | None = Field(
        None, description="where the protocol does not tell it: a matching head is `other`"
    )
    protocol: Name | None = Field(None, description="required, here or in each column")
    decoding: str = Field("greedy", description="as for --decoding")
    cited: bool = Field(False, description="quoted from another publication")
    note: str | None = None
    columns: list[Column] | None = Field(None, description="where they are not the table's")
    values: list[float | None] = Field(
        description="percent (cosines: as they are); null where there is none, or none is legible"
    )


class PublishedTable(NamedSpec):
    """A published table of results."""

    published: Name
    caption: str = ""
    reference: str | list[str] | None = None
    columns: list[Column] = Field(min_length=1)
    rows: list[Row] = Field(min_length=1)


@dataclass(frozen=True)
class Cell:
    """One number of a table, and what gives it again."""

    name: str
    model: str | None
    task: str
    metric: str
    protocol: str
    decoding: str
    value: float | None
    cited: bool
    note: str | None
    where: str
    encoder: str | None = None
    family: str | None = None

    @property
    def repeatable(self) -> bool:
        return self.model is not None and not self.cited

    @property
    def digits(self) -> int:
        """Decimals that are printed: of percentages one, of cosines three."""
        return 3 if "cosine" in self.metric else 1


@dataclass(frozen=True)
class Measured:
    """A cell beside its number as measured here, in the same unit; or why there is none."""

    cell: Cell
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    problem: str | None = None
    command: str | None = None
    """The best of several, chosen for this cell on the test samples themselves."""

    @property
    def agrees(self) -> bool | None:
        """Whether the published number lies within the interval, as far as it is printed."""
        published = self.cell.value
        if published is None or self.low is None or self.high is None:
            return None
        rounding = 0.5 * 10.0**-self.cell.digits + 1e-9
        return self.low - rounding <= published <= self.high + rounding


# --- tables -------------------------------------------------------------------------------------


def load(table: str) -> PublishedTable:
    """A table of the paper by its number, or a file of that form.

    Raises:
        InputError: no such table, or a file that does not fit the schema.
    """
    if not table.isdigit():
        return spec_check.parse(PublishedTable, yamlfile.load(Path(table).expanduser()))
    numbered = paper_tables()
    if int(table) not in numbered:
        known = ", ".join(map(str, numbered)) or "none"
        raise InputError(
            f"the paper has no table {table} of results; it has {known}",
            where=_paper_folder(),
            hint="Or give the path of a file of the same form.",
        )
    return spec_check.parse(PublishedTable, yamlfile.load(numbered[int(table)]))


def paper_tables() -> dict[int, Path]:
    """The paper's tables by number."""
    found = {}
    for path in _paper_folder().glob("table_*.yaml"):
        if match := re.fullmatch(r"table_(\d+)", path.stem):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def _paper_folder() -> Path:
    return paths.bundled() / "leaderboard" / "paper"


def cells(table: PublishedTable, registry: Registry, models: Sequence[str] = ()) -> list[Cell]:
    """The cells of a table, row by row; of ``models`` alone, where any is named.

    Raises:
        InputError: a value too many or too few, a name that there is not, a metric or a protocol
            that a task does not have.
    """
    found = [cell for index in range(len(table.rows)) for cell in _row(table, index, registry)]
    known = list(dict.fromkeys(cell.model for cell in found if cell.model is not None))
    for model in models:
        if model not in known:
            raise InputError(
                f"the table has no model {model!r}{suggest(model, known)}",
                where="--model",
                hint=f"It has: {listing(known) or 'none that can be run'}",
            )
    return [cell for cell in found if not models or cell.model in models]


def _row(table: PublishedTable, index: int, registry: Registry) -> Iterator[Cell]:
    row = table.rows[index]
    place: tuple[str | int, ...] = ("rows", index)
    columns = table.columns if row.columns is None else row.columns
    if len(columns) != len(row.values):
        raise InputError(
            f"row {row.name!r}: {len(row.values)} values for {len(columns)} columns",
            where=table.at(*place, "values"),
        )
    try:
        how = decoding.canonical(row.decoding)
    except InputError as error:
        where = table.at(*place, "decoding")
        raise InputError(error.message, where=where, hint=error.hint) from None
    if row.model is not None:
        _resolve(row.model, registry, table.at(*place, "model"))
    for number, (column, value) in enumerate(zip(columns, row.values, strict=True)):
        at = ("columns", number) if row.columns is None else (*place, "columns", number)
        protocol = column.protocol or row.protocol
        if protocol is None:
            raise InputError(f"row {row.name!r} needs a protocol", where=table.at(*place))
        says = at if column.protocol else place
        _check(column, protocol, registry, table.at(*at), table.at(*says, "protocol"))
        generates = PROTOCOLS.get(protocol).kind == "generate"
        yield Cell(
            row.name,
            row.model,
            column.task,
            column.metric,
            protocol,
            how if generates else "greedy",
            value,
            row.cited,
            row.note,
            table.at(*place, "values", number),
            row.encoder,
            row.family,
        )


def _check(column: Column, protocol: str, registry: Registry, at: str, says: str) -> None:
    registry.file("task", column.task, at)
    task = registry.task(column.task)
    METRICS.check(column.metric, at)
    if column.metric not in task.metrics:
        raise InputError(
            f"task {task.task} does not have the metric {column.metric!r}",
            where=at,
            hint=f"It has: {listing(task.metrics)}",
        )
    PROTOCOLS.check(protocol, says)
    if protocol not in task.protocols.declared:
        raise InputError(
            f"task {task.task} does not declare the protocol {protocol!r}",
            where=says,
            hint=f"It declares: {listing(task.protocols.declared)}",
        )


def _resolve(model: str, registry: Registry, where: str) -> ModelSpec:
    try:
        return resolve(model, registry)
    except InputError as error:
        raise InputError(error.message, where=where, hint=error.hint) from None


# --- what is here -------------------------------------------------------------------------------


class Here:
    """What of a table can be run on this machine; each model and task is looked at once."""

    def __init__(self, registry: Registry, data_dir: str | None = None) -> None:
        self.registry = registry
        self.root = paths.data_dir(data_dir)
        self._models: dict[str, InputError | None] = {}
        self._data: dict[tuple[str, bool], InputError | None] = {}

    def model(self, cell: Cell) -> InputError | None:
        """Why the weights of a cell's model are neither here nor to be had from the hub, if so."""
        assert cell.model is not None
        if cell.model not in self._models:
            spec = resolve(cell.model, self.registry)
            self._models[cell.model] = _problem(lambda: family(spec).check(spec))
        return self._models[cell.model]

    def data(self, cell: Cell) -> InputError | None:
        """Why a cell's data cannot be read, if so; images are only looked for."""
        model = None if cell.model is None else resolve(cell.model, self.registry)
        key = (cell.task, model is None or family(model).reads_images)
        if key not in self._data:
            self._data[key] = _problem(lambda: self._read(*key))
        return self._data[key]

    def problems(self, cell: Cell) -> list[InputError]:
        return [problem for problem in (self.model(cell), self.data(cell)) if problem]

    def _read(self, name: str, images: bool) -> None:
        spec = self.registry.task(name)
        if spec.dataset.reader == "hub":
            return  # to look would be to download it
        task = load_task(spec, self.registry, self.root)
        if images:
            check_images(task, self.root)


def _problem(look: Any) -> InputError | None:
    try:
        look()
    except InputError as error:
        return error
    return None


# --- measuring ----------------------------------------------------------------------------------


def measure(
    wanted: Sequence[Cell],
    here: Here,
    *,
    progress: Progress | None = None,
    argv: Sequence[str] | None = None,
    best_command: bool = False,
    **options: Any,
) -> tuple[list[Measured], TooManyErrors | None]:
    """Evaluate what can be evaluated here; ``options`` are those of ``evaluate``.

    With ``best_command`` all commands of each task are asked, and each cell is given by that which
    is best for it: the convention of the paper's Tables 12 and 13 (appendix B.5).

    A cell that cannot be measured says why and does not stop the rest; the error that is returned
    is the first of a run that was stopped by failing samples.
    """
    groups: dict[tuple[str, str, str], dict[str, None]] = {}
    outcomes: dict[Cell, Measured] = {}
    for cell in wanted:
        problems = here.problems(cell)
        if problems:
            text = "; ".join(problem.message for problem in problems)
            outcomes[cell] = Measured(cell, problem=text)
        else:
            key = (cell.protocol, cell.decoding, str(cell.model))
            groups.setdefault(key, {})[cell.task] = None
    stopped: TooManyErrors | None = None
    found: dict[tuple[str, ...], list[dict[str, Any]] | HarnessError] = {}
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
                of_cell = (protocol, how, labels[row["model"]], row["task"])
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
    """(protocol, decoding, models, tasks) of each run: models that need the same tasks share it."""
    together: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for (protocol, how, model), tasks in groups.items():
        together.setdefault((protocol, how, tuple(tasks)), []).append(model)
    for (protocol, how, names), models in together.items():
        yield protocol, how, models, list(names)


def _outcome(cell: Cell, rows: list[dict[str, Any]] | HarnessError) -> Measured:
    if isinstance(rows, HarnessError):
        return Measured(cell, problem=str(rows).splitlines()[0])
    best = max(rows, key=lambda row: row["metrics"][cell.metric]["value"] or 0.0)
    metric = best["metrics"][cell.metric]
    scale = 1 if "cosine" in cell.metric else 100
    value, low, high = (
        None if metric[key] is None else scale * metric[key]
        for key in ("value", "ci_low", "ci_high")
    )
    command = best["command"] if len(rows) > 1 else None
    return Measured(cell, value, low, high, metric["n"], command=command)
