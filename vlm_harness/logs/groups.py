"""Computes the scores of groups of tasks from their rows and records.

Needs no torch.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from vlm_harness.logs.group_row import PER_TASK, AggregateEstimate, GroupRow
from vlm_harness.metrics import METRICS, Record, stats
from vlm_harness.specs.groups import Group, tree
from vlm_harness.specs.schemas import Aggregate, GroupSpec, TaskSpec
from vlm_harness.types import SETTINGS, Estimate, ResultRow


class Scored(NamedTuple):
    """A row of results, and what it was computed from."""

    row: ResultRow
    task: TaskSpec
    records: Collection[Record]


Cells = dict[str, Scored]
"""The row of each task of a group in one configuration."""


def covers(group: Collection[str], tasks: Collection[str]) -> bool:
    """Whether a run of these tasks reports a group: it has all tasks of the group, or several."""
    n = len(set(group) & set(tasks))
    return n > 1 or n == len(group) > 0


def group_rows(specs: Mapping[str, GroupSpec], scored: Sequence[Scored]) -> list[GroupRow]:
    """The scores of groups, one row for each group and configuration.

    Args:
        specs: groups by name, with those among their members.
        scored: the rows of the run.
    """
    tasks = {each.row.task for each in scored}
    groups = [tree(name, specs) for name in specs]
    return [
        _row(group, settings, cells)
        for group in groups
        if covers(group.tasks, tasks)
        for settings, cells in _configurations(group, scored)
    ]


# --- configurations -------------------------------------------------------------------------------


def _configurations(
    group: Group, scored: Sequence[Scored]
) -> Iterator[tuple[Mapping[str, str], Cells]]:
    """The rows of the tasks of a group by model, protocol and settings.

    If every task has only one value of a setting, and these values differ, as the default commands
    of tasks may, they are one configuration.
    """
    by_protocol: dict[tuple[str, str], list[Scored]] = {}
    for each in scored:
        if each.row.task in group.tasks:
            by_protocol.setdefault((each.row.model, each.row.protocol), []).append(each)
    for members in by_protocol.values():
        own = [name for name in SETTINGS if _is_own(name, members)]
        found: dict[tuple[str, ...], tuple[Mapping[str, str], Cells]] = {}
        for each in members:
            settings = {**each.row.grid, **dict.fromkeys(own, PER_TASK), "task": group.spec.group}
            _, cells = found.setdefault(tuple(settings.values()), (settings, {}))
            cells[each.row.task] = each
        yield from found.values()


def _is_own(name: str, members: Sequence[Scored]) -> bool:
    """Whether a setting differs between tasks, but not within any of them."""
    values: dict[str, set[str]] = {}
    for each in members:
        values.setdefault(each.row.task, set()).add(each.row.grid[name])
    return max(map(len, values.values())) == 1 and len(set.union(*values.values())) > 1


# --- scores ---------------------------------------------------------------------------------------


def _row(group: Group, settings: Mapping[str, str], cells: Cells) -> GroupRow:
    rows = [each.row for each in cells.values()]
    missing = [task for task in group.tasks if task not in cells]
    incomplete = [task for task in group.tasks if task in cells and not cells[task].row.complete]
    return GroupRow(
        **{("group" if name == "task" else name): value for name, value in settings.items()},
        group_version=group.spec.version,
        limit=rows[0].limit,
        seed=rows[0].seed,
        headline=group.spec.aggregates[0].name,
        aggregates={
            each.name: _estimate(group, each, None if missing else cells)
            for each in group.spec.aggregates
        },
        members=group.tasks,
        missing=missing,
        incomplete=incomplete,
        n_samples=sum(row.n_samples for row in rows),
        n_unparsed=sum(row.n_unparsed for row in rows),
        n_errors=sum(row.n_errors for row in rows),
        n_tied=sum(row.n_tied for row in rows),
        complete=not missing and not incomplete,
    )


def _estimate(group: Group, aggregate: Aggregate, cells: Cells | None) -> AggregateEstimate:
    """A score; without a value if there are no ``cells``, or a metric of a task has no value."""
    known = {
        task: [each.row.metrics[name] for name in aggregate.metrics]
        for task, each in (cells or {}).items()
    }
    sizes = {task: found[0].n for task, found in known.items()}
    weights = group.weights(aggregate, sizes) if known else {}
    value = _weighted(weights, known, "value")
    low, high = None, None
    if value is not None and cells:
        terms = [_term(cells[task], aggregate, weight) for task, weight in weights.items()]
        seed = next(iter(cells.values())).row.seed
        low, high = stats.combined_interval(terms, seed=seed)
    return AggregateEstimate(
        of=aggregate.metrics,
        how=aggregate.how,
        value=value,
        ci_low=low,
        ci_high=high,
        n=sum(sizes.values()),
        chance=_weighted(weights, known, "chance"),
    )


def _weighted(
    weights: Mapping[str, float], known: Mapping[str, Sequence[Estimate]], field: str
) -> float | None:
    """The weighted sum of a field of the metrics of all tasks; None if any is unknown."""
    numbers = {task: [getattr(each, field) for each in found] for task, found in known.items()}
    if not numbers or any(number is None for found in numbers.values() for number in found):
        return None
    return float(sum(weights[task] * sum(found) for task, found in numbers.items()))


def _term(scored: Scored, aggregate: Aggregate, weight: float) -> stats.Term:
    task = scored.task
    metrics = [
        METRICS.get(name, task.at("metrics"))(list(scored.records), task.grouping)
        for name in aggregate.metrics
    ]
    return stats.Term(weight, metrics)
