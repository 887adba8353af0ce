"""The rows of ``results.json`` to export, those of groups included, selected and checked."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_harness.errors import InputError, listing, not_found
from vlm_harness.logs.group_row import GroupRow
from vlm_harness.logs.labels import row_labels
from vlm_harness.logs.run import Run
from vlm_harness.metrics import METRICS
from vlm_harness.metrics.display import COMPARED
from vlm_harness.types import Cell, ResultRow


@dataclass(frozen=True)
class Result:
    """One row of ``results.json``, and the metrics to export; for a group, its scores."""

    run: Run
    row: ResultRow | GroupRow
    metrics: Sequence[str]

    @property
    def members(self) -> Sequence[str]:
        """The tasks of a group; empty for a task."""
        return self.row.members if isinstance(self.row, GroupRow) else ()

    @property
    def version(self) -> int:
        """Version of the task or group."""
        row = self.row
        return row.group_version if isinstance(row, GroupRow) else row.task_version

    @property
    def cells(self) -> list[Cell]:
        """The cells of the run that the row is computed from."""
        row = self.row
        if isinstance(row, GroupRow):
            return [cell for cell in self.run.cells if row.includes(cell)]
        return [row.cell]

    def measure(self, name: str) -> str:
        """The metric that declares unit and direction of one of ``metrics``."""
        return self.row.aggregates[name].of[0] if isinstance(self.row, GroupRow) else name

    def __getitem__(self, name: str) -> str:
        """A field of the grid by its JSON name, or ``run``."""
        return self.run.name if name == "run" else str(self.row.grid[name])


def load(
    folders: Sequence[Path],
    *,
    models: Sequence[str] = (),
    tasks: Sequence[str] = (),
    metrics: Sequence[str] = (),
) -> list[Result]:
    """Load the results of some runs, restricted to ``models``, ``tasks`` and ``metrics`` if given.

    The scores of groups come last. ``tasks`` may name groups, too. Groups that were not computed,
    because a task is missing, are left out.

    Raises:
        InputError: not a run folder, a run without results, a name that no result has, or two
            results of the same configuration.
    """
    runs = [*map(Run, folders)]
    rows: list[tuple[Run, ResultRow | GroupRow]] = [
        (run, row) for run in runs for row in run.results
    ]
    rows += [(run, row) for run in runs for row in run.results.groups if not row.missing]
    _check_names(models, {row.model for _, row in rows}, "model", "--model")
    _check_names(tasks, {row.task for _, row in rows}, "task", "--task")
    rows = [
        (run, row)
        for run, row in rows
        if (not models or row.model in models) and (not tasks or row.task in tasks)
    ]
    known = {name for _, row in rows for name in (*row.metrics, *_measures(row))}
    _check_names(metrics, known, "metric", "--metric")
    found = [Result(run, row, _metrics(row, metrics)) for run, row in rows]
    found = [result for result in found if result.metrics]
    if not found:
        raise InputError("no results match the selection", where=", ".join(map(str, folders)))
    _check_distinct(found)
    return found


def _check_names(asked: Iterable[str], known: Collection[str], kind: str, where: str) -> None:
    for name in asked:
        if name not in known:
            raise not_found(f"no result has a {kind} {name!r}", name, known, where=where)


def _measures(row: ResultRow | GroupRow) -> set[str]:
    """The metrics that the scores of a group are computed from."""
    scores = row.aggregates.values() if isinstance(row, GroupRow) else ()
    return {name for score in scores for name in score.of}


def _metrics(row: ResultRow | GroupRow, asked: Sequence[str]) -> list[str]:
    """The requested metrics of a row; by default the paper's metrics and the primary metric.

    A metric also selects the scores of groups that are computed from it.
    """
    if isinstance(row, GroupRow):
        return [
            name
            for name, score in row.aggregates.items()
            if not asked or name in asked or set(score.of) & {*asked}
        ]
    if asked:
        return [name for name in dict.fromkeys(asked) if name in row.metrics]
    return [
        name
        for name in dict.fromkeys([*COMPARED, row.primary_metric])
        if name in row.metrics
        and (row.metrics[name].value is not None or name == row.primary_metric)
    ]


def _check_distinct(results: Sequence[Result]) -> None:
    seen: dict[tuple[str, Cell], Result] = {}
    for result in results:
        key = (result.run.name, result.row.cell)
        if key in seen:
            folders = f"{seen[key].run.path} and {result.run.path}"
            raise InputError(
                f"duplicate result: {result.row.model} on {result.row.task}, in {folders}",
                where="RUN",
                hint="Give each run once. Export runs of the same name separately.",
            )
        seen[key] = result


def labels(results: Sequence[Result]) -> list[dict[str, str]]:
    """The fields that distinguish each result from others of its model and protocol."""
    return row_labels([each.row for each in results], [each.run.name for each in results])


def one_model(results: Sequence[Result], format_: str) -> str:
    """The only model of the results.

    Raises:
        InputError: the results are of several models.
    """
    models = {result.row.model for result in results}
    if len(models) > 1:
        raise InputError(
            f"the format {format_} holds one model, but the runs have {len(models)}",
            where="--format",
            hint=f"Choose one with --model: {listing(models)}",
        )
    return models.pop()


def higher_is_better(metric: str) -> bool | None:
    """None if the metric has no direction, or is unknown."""
    direction = METRICS.declared(metric).direction
    return None if direction is None else direction == "higher"
