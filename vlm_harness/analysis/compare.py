"""Two runs on the same samples: differences, exact McNemar tests, paired bootstrap intervals.

Both sides are read from their logs alone, so neither models nor data are needed. What must be equal
on both is in ``comparable``, what differs sample by sample in ``flips``.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from vlm_harness.analysis.comparable import Side, both, paired
from vlm_harness.analysis.flips import Flips, flips
from vlm_harness.errors import InputError, listing, not_found
from vlm_harness.logs.results import record
from vlm_harness.logs.run import Run
from vlm_harness.metrics import METRICS, Metric, Record
from vlm_harness.metrics.stats import (
    Floats,
    Statistic,
    Units,
    difference_interval,
    holm,
    mcnemar,
    ratio_difference_interval,
)
from vlm_harness.specs.schemas import GroupRules
from vlm_harness.types import ASKED, Cell, LogLine

CHOOSABLE = ("model", "protocol", *ASKED)
"""Fields of a cell that ``--only`` may fix."""
UNITS = ("sample", "pair", "set")


@dataclass(frozen=True)
class Row:
    """One metric of one task, on both sides."""

    a: Cell
    b: Cell
    metric: str
    unit: str
    """What is matched: samples (in each of their orders), pairs or sets."""
    n: int
    """Of units that count on both sides."""
    n_clusters: int
    """Fewer than ``n`` where units hang together; the test takes no notice of that."""
    value_a: float
    value_b: float
    difference: float
    """B minus A."""
    ci_low: float | None
    ci_high: float | None
    only_a: int | None
    """Units right on side A alone: McNemar's b. None where units are not right or wrong."""
    only_b: int | None
    """Units right on side B alone: McNemar's c."""
    p: float | None
    p_holm: float | None = None
    """Adjusted for all p-values of the comparison."""


class Comparison(NamedTuple):
    a: Side
    b: Side
    rows: Sequence[Row]
    notes: Sequence[str]
    flips: Sequence[Flips]
    """Of each two cells that were compared, in the order of ``rows``."""
    pairs: Sequence[Sequence[tuple[LogLine, LogLine]]]
    """Their lines side by side, likewise."""


class _Scored(NamedTuple):
    """A metric of each unit on its own."""

    numerators: Floats
    denominators: Floats


# --- the comparison -------------------------------------------------------------------------------


def compare(
    run_a: Path,
    run_b: Path | None = None,
    *,
    only_a: Mapping[str, str] | None = None,
    only_b: Mapping[str, str] | None = None,
    tasks: Sequence[str] = (),
    metrics: Sequence[str] = (),
    common: bool = False,
) -> Comparison:
    """Compare two runs, or two models (or decodings, ...) of one run.

    ``only_a`` and ``only_b`` choose among the cells of a side by field. With ``common``, samples
    that only one side has are left out, where the other has none that it lacks.

    Raises:
        InputError: no run folders, no choice that is unique, or sides that must not be compared.
    """
    found_a, found_b = Run(run_a), Run(run_b or run_a)
    one_run = found_a.path.resolve() == found_b.path.resolve()
    chosen_a, chosen_b = dict(only_a or {}), dict(only_b or {})
    if one_run:
        _name_models(found_a, chosen_a, chosen_b)
    a = _side("A", found_a, chosen_a)
    b = _side("B", found_b, chosen_b)
    rows: list[Row] = []
    notes: list[str] = []
    flipped: list[Flips] = []
    lines: list[Sequence[tuple[LogLine, LogLine]]] = []
    known: set[str] = set()
    for cell_a, cell_b in _matched(a, b, tasks):
        if one_run and cell_a == cell_b:
            raise InputError(
                f"both sides are the same answers: {cell_a.model} on {cell_a.task}",
                where=both(a, b),
                hint="Name a second run, or choose with --model-a and --model-b, or with --only-a "
                "and --only-b.",
            )
        pairs, noted = paired(a, b, cell_a, cell_b, common)
        notes += noted
        lines.append(pairs)
        spec = a.run.spec(cell_a.task)
        flipped.append(flips(cell_a, cell_b, pairs, spec.grouping))
        known.update(spec.metrics)
        records = (
            _records((x for x, _ in pairs), spec.positive),
            _records((y for _, y in pairs), spec.positive),
        )
        seed = a.run.manifest.identity.seed
        found = [
            _row(cell_a, cell_b, name, METRICS.get(name), *records, spec.grouping, seed)
            for name in spec.metrics
        ]
        shown = _without_doubles([row for row in found if row is not None])
        rows += [row for row in shown if not metrics or row.metric in metrics]
    for metric in metrics:
        if metric not in known:
            raise not_found(
                f"no task compared has the metric {metric!r}", metric, known, where="--metric"
            )
    if not rows:
        raise InputError(
            "no metric has a value on both sides",
            where=both(a, b),
            hint=f"Metrics of what was compared: {listing(known)}",
        )
    adjusted = iter(holm([row.p for row in rows if row.p is not None]))
    rows = [row if row.p is None else replace(row, p_holm=next(adjusted)) for row in rows]
    return Comparison(a, b, rows, notes, flipped, lines)


def _without_doubles(rows: Sequence[Row]) -> list[Row]:
    """Without metrics that give just what a plainer one gives, which would be tested twice.

    So do official formulas over whole groups, and sums of log-probabilities.
    """
    found = {row.metric: (row.value_a, row.value_b, row.n) for row in rows}

    def repeats(row: Row) -> bool:
        equals = METRICS.declared(row.metric).equals
        return equals is not None and found.get(equals.metric) == found[row.metric]

    return [row for row in rows if not repeats(row)]


def title(a: Cell, b: Cell) -> str:
    """The task, and by what beside the model the sides differ."""
    parts = [a.task]
    for field in CHOOSABLE[1:]:
        mine, theirs = a.grid[field], b.grid[field]
        if mine != theirs:
            parts.append(f"{field.replace('_', ' ')} {mine} (A), {theirs} (B)")
        elif field == "protocol":
            parts.append(mine)
    return " / ".join(parts)


# --- which cells -------------------------------------------------------------------------------


def _name_models(run: Run, chosen_a: dict[str, str], chosen_b: dict[str, str]) -> None:
    """Of a run of two models, those that were not named are the first and the second."""
    names = list(dict.fromkeys(cell.model for cell in run.cells))
    if len(names) != 2:
        return
    for mine, other, default in ((chosen_a, chosen_b, 0), (chosen_b, chosen_a, 1)):
        taken = names.index(other["model"]) if other.get("model") in names else 1 - default
        mine.setdefault("model", names[1 - taken])


def _side(name: str, run: Run, chosen: Mapping[str, str]) -> Side:
    """The cells of a run that are as asked; one model must be left."""
    cells = run.cells
    for field, value in chosen.items():
        known = {cell.grid[field] for cell in cells}
        if value not in known:
            option = f"--model-{name.lower()}" if field == "model" else f"--only {field}="
            raise not_found(
                f"side {name} has no {field.replace('_', ' ')} {value!r}",
                value,
                known,
                where=run.path,
                hint=f"For {option} there are: {{}}",
            )
        cells = [cell for cell in cells if cell.grid[field] == value]
    models = {cell.model for cell in cells}
    if len(models) > 1:
        raise InputError(
            f"side {name} has {len(models)} models, and one is to be compared",
            where=run.path,
            hint=f"Choose with --model-{name.lower()}: {listing(models)}",
        )
    return Side(name, run, cells)


def _matched(a: Side, b: Side, asked: Sequence[str]) -> list[tuple[Cell, Cell]]:
    """One cell of either side for each task, and for each protocol that both have."""
    tasks_a, tasks_b = (dict.fromkeys(v.task for v in side.cells) for side in (a, b))
    shared = [name for name in tasks_a if name in tasks_b]
    for name in asked:
        if name not in shared:
            raise not_found(
                f"the sides have no common task {name!r}",
                name,
                shared,
                where="--task",
                hint=f"Side A has: {listing(tasks_a)}\nSide B has: {listing(tasks_b)}",
            )
    if not shared:
        raise InputError(
            "the sides have no common task",
            where=both(a, b),
            hint=f"Side A has: {listing(tasks_a)}\nSide B has: {listing(tasks_b)}",
        )
    return [
        (_one(a, name, mine), _one(b, name, theirs))
        for name in shared
        if not asked or name in asked
        for mine, theirs in _protocols(a, b, name)
    ]


def _protocols(a: Side, b: Side, task: str) -> list[tuple[str, str]]:
    """Those that both sides have; a dual encoder and a VLM may have one each, and no other."""
    mine, theirs = (
        list(dict.fromkeys(v.protocol for v in side.cells if v.task == task)) for side in (a, b)
    )
    same = [(name, name) for name in mine if name in theirs]
    if same:
        return same
    if len(mine) > 1 or len(theirs) > 1:
        raise InputError(
            f"the sides have no common protocol on {task}, and more than one each to choose from",
            where=both(a, b),
            hint="Choose with --only-a protocol=NAME and --only-b protocol=NAME.\n"
            f"Side A has: {listing(mine)}\nSide B has: {listing(theirs)}",
        )
    return [(mine[0], theirs[0])]


def _one(side: Side, task: str, protocol: str) -> Cell:
    """The cell of a side; there must be no other."""
    found = [v for v in side.cells if (v.task, v.protocol) == (task, protocol)]
    if len(found) == 1:
        return found[0]
    values = {field: {v.grid[field] for v in found} for field in CHOOSABLE}
    varying = {field: known for field, known in values.items() if len(known) > 1}
    ways = [f"{field} ({listing(known)})" for field, known in varying.items()]
    example = next(iter(varying))
    raise InputError(
        f"side {side.name} was asked {task} under {protocol} in {len(found)} ways, which differ in "
        + " and ".join(ways),
        where=side.path,
        hint=f"Choose one: --only {example}={getattr(found[0], example)}, or --only-a and --only-b "
        "for one side alone.",
    )


# --- from lines to a row --------------------------------------------------------------------------


def _records(lines: Iterable[LogLine], positive: str | None = None) -> list[Record]:
    """As metrics want them, one by one.

    Metrics are asked about single units here. Of a failed response, which has no scores, a unit
    alone could not tell that the others had some; scores that are no numbers say so, and are wrong
    just as well. JSON has no NaN either: the log has null for it.
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
    """A metric on both sides, or None where it is undefined or is no sum over units."""
    whole_a, whole_b = metric(records_a, rules), metric(records_b, rules)
    if whole_a.value is None or whole_b.value is None:
        return None
    if isinstance(whole_a, Statistic) or isinstance(whole_b, Statistic) or whole_a.by_answers:
        return _row_of_wholes(a, b, name, whole_a, whole_b, len(records_a), seed)
    for unit in UNITS:
        members = _members(records_a, unit)
        scored_a = _score(metric, rules, records_a, members)
        if not _adds_up(scored_a, whole_a):
            continue
        scored_b = _score(metric, rules, records_b, members)
        if _adds_up(scored_b, whole_b):
            break
    else:
        return None
    # A metric may leave units out by their scores, on one side alone: those have no partner.
    kept = (scored_a.denominators == scored_b.denominators) & (scored_a.denominators > 0)
    if not kept.any():
        return None
    top_a, top_b = scored_a.numerators[kept], scored_b.numerators[kept]
    weights = scored_a.denominators[kept]
    first = [records_a[group[0]] for group, keep in zip(members, kept, strict=True) if keep]
    clusters = [each.cluster for each in first]
    units = Units.of(list(top_b - top_a), clusters, list(weights), proportion=whole_a.proportion)
    low, high = difference_interval(units, seed)
    right_or_wrong = bool(
        whole_a.proportion
        and (weights == 1).all()
        and np.isin(top_a, (0, 1)).all()
        and np.isin(top_b, (0, 1)).all()
    )
    only_a = int((top_a > top_b).sum()) if right_or_wrong else None
    only_b = int((top_b > top_a).sum()) if right_or_wrong else None
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


def _row_of_wholes(
    a: Cell,
    b: Cell,
    name: str,
    whole_a: Units | Statistic,
    whole_b: Units | Statistic,
    n: int,
    seed: int,
) -> Row:
    """A metric such as F1: what counts in it differs between the sides, so no unit has a partner.

    The two values are compared as they are, without McNemar's test.
    """
    assert whole_a.value is not None
    assert whole_b.value is not None
    if isinstance(whole_a, Statistic):
        assert isinstance(whole_b, Statistic)
        clusters = whole_a.clusters
        low, high = whole_b.minus(whole_a).interval(seed)
    else:
        assert isinstance(whole_b, Units)
        clusters = len(whole_a.numerators)
        low, high = ratio_difference_interval(whole_a, whole_b, seed)
    return Row(
        a,
        b,
        name,
        "sample",
        n=n,
        n_clusters=clusters,
        value_a=whole_a.value,
        value_b=whole_b.value,
        difference=whole_b.value - whole_a.value,
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
    """``metric`` is one that gives units, as ``_row`` has made sure."""
    units = [
        cast(Units, metric([records[position] for position in group], rules)) for group in members
    ]
    return _Scored(
        np.array([each.numerators.sum() for each in units]),
        np.array([each.denominators.sum() for each in units]),
    )


def _adds_up(scored: _Scored, whole: Units) -> bool:
    """Whether the units make the metric: pairs do that of ``pair_accuracy``, samples do not."""
    return math.isclose(scored.numerators.sum(), whole.numerators.sum(), abs_tol=1e-9) and (
        math.isclose(scored.denominators.sum(), whole.denominators.sum(), abs_tol=1e-9)
    )
