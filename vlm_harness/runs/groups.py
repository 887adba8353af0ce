"""The groups with scores that a run reports, checked against the tasks that they name."""

from collections.abc import Mapping

from vlm_harness.errors import InputError, listing
from vlm_harness.logs.groups import covers
from vlm_harness.metrics import METRICS
from vlm_harness.specs.groups import tree
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import Aggregate, GroupSpec, TaskSpec


def reported(registry: Registry, tasks: Mapping[str, TaskSpec]) -> dict[str, GroupSpec]:
    """The groups of which a run has all tasks, or several; with the groups among their members.

    Raises:
        InputError: such a group is invalid, or uses a metric that one of the run's tasks lacks.
    """
    names = [
        name for name in registry.names("group") if covers(registry.groups[name], tasks.keys())
    ]
    specs = registry.group_specs(names)
    for name in names:
        check_scores(name, specs, tasks)
    return specs


def check_scores(name: str, specs: Mapping[str, GroupSpec], tasks: Mapping[str, TaskSpec]) -> None:
    """Check the scores of a group against those of its tasks that are given.

    Raises:
        InputError: a metric is unknown or not one of a task, or metrics that are added differ in
            their units.
    """
    group = tree(name, specs)
    for number, aggregate in enumerate(group.spec.aggregates):
        where = group.spec.at("aggregates", number, "of")
        _check_units(aggregate, where)
        for task in group.tasks:
            for metric in aggregate.metrics:
                if task in tasks and metric not in tasks[task].metrics:
                    raise InputError(
                        f"{name}, {aggregate.name}: task {task} does not have the metric "
                        f"{metric!r}",
                        where=where,
                        hint=f"Its metrics: {listing(tasks[task].metrics)} "
                        f"({tasks[task].at('metrics')}).",
                    )


def _check_units(aggregate: Aggregate, where: str) -> None:
    for metric in aggregate.metrics:
        METRICS.check(metric, where)
    units = {metric: METRICS.declared(metric).unit for metric in aggregate.metrics}
    if len(set(units.values())) > 1:
        described = ", ".join(f"{metric} ({unit})" for metric, unit in units.items())
        raise InputError(
            f"{aggregate.name}: metrics of different units cannot be added: {described}",
            where=where,
        )
