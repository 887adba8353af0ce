"""One metric of two cells: the difference, its paired interval, and McNemar's exact test."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import numpy as np

from vlm_harness.logs.results import record
from vlm_harness.metrics import METRICS, Metric, Record
from vlm_harness.metrics.stats import (
    Floats,
    Statistic,
    Units,
    difference_interval,
    mcnemar,
    ratio_difference_interval,
)
from vlm_harness.specs.schemas import GroupRules, TaskSpec
from vlm_harness.types import Cell, LogLine

UNITS = ("sample", "pair", "set")


@dataclass(frozen=True)
class Row:
    """One metric of one task, on both sides."""

    a: Cell
    b: Cell
    metric: str
    unit: str
    """The matched units: samples (in each of their orders), pairs or sets."""
    n: int
    """Number of units that count on both sides."""
    n_clusters: int
    """Fewer than ``n`` if units are dependent, which McNemar's test ignores."""
    value_a: float
    value_b: float
    difference: float
    """B minus A."""
    ci_low: float | None
    ci_high: float | None
    only_a: int | None
    """Units correct on side A only: McNemar's b. None if units are not correct or incorrect."""
    only_b: int | None
    """Units correct on side B only: McNemar's c."""
    p: float | None
    p_holm: float | None = None
    """Holm-adjusted for all p-values of the comparison."""


class _Scored(NamedTuple):
    """A metric, computed for each unit separately."""

    numerators: Floats
    denominators: Floats


def differences(
    a: Cell, b: Cell, pairs: Sequence[tuple[LogLine, LogLine]], task: TaskSpec, seed: int
) -> list[Row]:
    """One row per metric that has a value on both sides, without redundant metrics.

    ``pairs`` are the paired lines of the two cells.
    """
    records_a = _records((x for x, _ in pairs), task.positive)
    records_b = _records((y for _, y in pairs), task.positive)
    found = [
        _row(a, b, name, METRICS.get(name), records_a, records_b, task.grouping, seed)
        for name in task.metrics
    ]
    return _without_redundant([row for row in found if row is not None])


def _without_redundant(rows: Sequence[Row]) -> list[Row]:
    """Drop metrics that equal a simpler one, which would be tested twice.

    Examples are official formulas over complete groups, and sums of log-probabilities.
    """
    found = {row.metric: (row.value_a, row.value_b, row.n) for row in rows}

    def repeats(row: Row) -> bool:
        equals = METRICS.declared(row.metric).equals
        return equals is not None and found.get(equals.metric) == found[row.metric]

    return [row for row in rows if not repeats(row)]


def _records(lines: Iterable[LogLine], positive: str | None = None) -> list[Record]:
    """Records for metrics that are computed for each unit separately.

    A failed response has no scores. Within a single unit, a metric could not tell that the other
    units do have scores, so missing scores become NaN, which counts as incorrect too. NaN in a log
    is null, since JSON has no NaN.
    """
    found = [record(line, positive) for line in lines]
    if not any(each.scores for each in found):
        return found
    return [
        replace(each, scores=(math.nan,) * each.n_options)
        if each.scores is None or None in each.scores
        else each
        for each in found
    ]


def _row(
    a: Cell,
    b: Cell,
    name: str,
    metric: Metric,
    records_a: Sequence[Record],
    records_b: Sequence[Record],
    rules: GroupRules,
    seed: int,
) -> Row | None:
    """A metric on both sides, or None if it is undefined or not a sum over units."""
    total_a, total_b = metric(records_a, rules), metric(records_b, rules)
    if total_a.value is None or total_b.value is None:
        return None
    if isinstance(total_a, Statistic) or isinstance(total_b, Statistic) or total_a.by_answers:
        return _row_of_estimates(a, b, name, total_a, total_b, len(records_a), seed)
    for unit in UNITS:
        members = _members(records_a, unit)
        scored_a = _score(metric, rules, records_a, members)
        if not _adds_up(scored_a, total_a):
            continue
        scored_b = _score(metric, rules, records_b, members)
        if _adds_up(scored_b, total_b):
            break
    else:
        return None
    # A metric may leave out units by their scores, on one side only: these have no partner.
    kept = (scored_a.denominators == scored_b.denominators) & (scored_a.denominators > 0)
    if not kept.any():
        return None
    top_a, top_b = scored_a.numerators[kept], scored_b.numerators[kept]
    weights = scored_a.denominators[kept]
    first = [records_a[group[0]] for group, keep in zip(members, kept, strict=True) if keep]
    clusters = [each.cluster for each in first]
    units = Units.of(list(top_b - top_a), clusters, list(weights), proportion=total_a.proportion)
    low, high = difference_interval(units, seed)
    is_binary = bool(
        total_a.proportion
        and (weights == 1).all()
        and np.isin(top_a, (0, 1)).all()
        and np.isin(top_b, (0, 1)).all()
    )
    only_a = int((top_a > top_b).sum()) if is_binary else None
    only_b = int((top_b > top_a).sum()) if is_binary else None
    return Row(
        a,
        b,
        name,
        unit,
        n=int(kept.sum()),
        n_clusters=len(units.numerators),
        value_a=float(top_a.sum() / weights.sum()),
        value_b=float(top_b.sum() / weights.sum()),
        difference=float((top_b - top_a).sum() / weights.sum()),
        ci_low=low,
        ci_high=high,
        only_a=only_a,
        only_b=only_b,
        p=None if only_a is None or only_b is None else mcnemar(only_a, only_b),
    )


def _row_of_estimates(
    a: Cell,
    b: Cell,
    name: str,
    total_a: Units | Statistic,
    total_b: Units | Statistic,
    n: int,
    seed: int,
) -> Row:
    """A metric such as F1, whose units differ between the sides and so cannot be paired.

    The two values are compared directly, without McNemar's test.
    """
    assert total_a.value is not None
    assert total_b.value is not None
    if isinstance(total_a, Statistic):
        assert isinstance(total_b, Statistic)
        clusters = total_a.clusters
        low, high = total_b.minus(total_a).interval(seed)
    else:
        assert isinstance(total_b, Units)
        clusters = len(total_a.numerators)
        low, high = ratio_difference_interval(total_a, total_b, seed)
    return Row(
        a,
        b,
        name,
        "sample",
        n=n,
        n_clusters=clusters,
        value_a=total_a.value,
        value_b=total_b.value,
        difference=total_b.value - total_a.value,
        ci_low=low,
        ci_high=high,
        only_a=None,
        only_b=None,
        p=None,
    )


def _members(records: Sequence[Record], unit: str) -> list[list[int]]:
    """Positions of the records of each unit; groups are scored within one order."""
    found: dict[tuple[str, str, int], list[int]] = {}
    for position, each in enumerate(records):
        key = None if unit == "sample" else getattr(each, unit)
        name = ("sample", each.sample_id) if key is None else (unit, key)
        found.setdefault((*name, each.order_index), []).append(position)
    return list(found.values())


def _score(
    metric: Metric, rules: GroupRules, records: Sequence[Record], members: Sequence[Sequence[int]]
) -> _Scored:
    """Compute ``metric`` for each unit; ``_row`` ensures that the metric returns ``Units``."""
    units = [
        cast(Units, metric([records[position] for position in group], rules)) for group in members
    ]
    return _Scored(
        np.array([each.numerators.sum() for each in units]),
        np.array([each.denominators.sum() for each in units]),
    )


def _adds_up(scored: _Scored, total: Units) -> bool:
    """Whether the units sum to the metric: for ``pair_accuracy`` pairs do, samples do not."""
    return math.isclose(scored.numerators.sum(), total.numerators.sum(), abs_tol=1e-9) and (
        math.isclose(scored.denominators.sum(), total.denominators.sum(), abs_tol=1e-9)
    )
