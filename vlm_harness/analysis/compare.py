"""Two runs on the same samples: differences, exact McNemar tests, paired bootstrap intervals.

Both sides are read from their logs, so neither models nor data are needed. ``sides`` selects the
cells to compare, ``comparable`` checks that they can be compared, ``differences`` computes the
statistics, and ``flips`` finds the samples with different answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_harness.analysis.comparable import Side, both, paired
from vlm_harness.analysis.differences import Row, differences
from vlm_harness.analysis.flips import Flips, flips
from vlm_harness.analysis.sides import CHOOSABLE, matched, sides
from vlm_harness.errors import InputError, listing, not_found
from vlm_harness.logs.run import Run
from vlm_harness.metrics import display
from vlm_harness.metrics.stats import holm
from vlm_harness.types import Cell, LogLine

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two sides."""

    a: Side
    b: Side
    rows: Sequence[Row]
    """One per task, protocol and metric."""
    notes: Sequence[str]
    """Differences between the sides that matter for reading the result."""
    flips: Sequence[Flips]
    """One per pair of compared cells, in the order of ``rows``."""
    pairs: Sequence[Sequence[tuple[LogLine, LogLine]]]
    """The paired lines of these cells, in the same order."""

    def to_dict(self) -> dict[str, Any]:
        """As ``vlm-harness compare --json`` prints it."""
        rows = [
            {**asdict(row), "task": row.a.task, "a": row.a.to_dict(), "b": row.b.to_dict()}
            for row in self.rows
        ]
        flips = [
            {
                "task": each.a.task,
                "a": each.a.to_dict(),
                "b": each.b.to_dict(),
                "counts": each.counts(),
                "samples": [asdict(flip) for flip in each.samples],
                "groups": [asdict(group) for group in each.groups],
            }
            for each in self.flips
        ]
        runs = {"run_a": str(self.a.path), "run_b": str(self.b.path)}
        return {**runs, "comparisons": rows, "flips": flips, "notes": list(self.notes)}

    def to_pandas(self) -> "pandas.DataFrame":
        """One row per task, protocol and metric: both values, difference, interval, p."""
        import pandas

        return pandas.DataFrame([
            {
                "task": row.a.task,
                **{
                    f"{name}_{side}": cell.grid[name]
                    for name in CHOOSABLE
                    for side, cell in (("a", row.a), ("b", row.b))
                },
                **{name: value for name, value in asdict(row).items() if name not in ("a", "b")},
            }
            for row in self.rows
        ])  # fmt: skip

    def _repr_html_(self) -> str:
        """In a notebook: one row per task, protocol and metric."""
        heads = ["task", "metric", "n", "A", "B", "B-A", "95% interval", "only A/B", "p (Holm)"]
        rows = [
            [
                title(row.a, row.b),
                display.short(row.metric),
                f"{row.n} {row.unit}s",
                display.number(row.metric, row.value_a),
                display.number(row.metric, row.value_b),
                display.signed(row.metric, row.difference),
                display.signed_interval(row.metric, row.ci_low, row.ci_high) or "–",
                "–" if row.only_a is None else f"{row.only_a}/{row.only_b}",
                display.p_value(row.p_holm, "–"),
            ]
            for row in self.rows
        ]
        named = [f"{side.name}: {side.cells[0].model} ({side.path})" for side in (self.a, self.b)]
        units = display.units_note(dict.fromkeys(row.metric for row in self.rows))
        return display.html_table(heads, rows, [*named, *filter(None, [units]), *self.notes])


def compare(
    run_a: Run | Path | str,
    run_b: Run | Path | str | None = None,
    *,
    only_a: Mapping[str, str] | None = None,
    only_b: Mapping[str, str] | None = None,
    tasks: str | Sequence[str] = (),
    metrics: str | Sequence[str] = (),
    common: bool = False,
) -> Comparison:
    """Compare two runs, or two models (or decodings, ...) of one run, on the same samples.

    Args:
        run_a: a run or its folder.
        run_b: another run; if None, compare two models (or decodings, ...) of ``run_a``.
        only_a: selects cells of side A by field, e.g. ``{"model": "clip"}``. Fields are
            ``model``, ``protocol``, ``command``, ``order``, ``decoding`` and ``image_mode``.
        only_b: the same for side B.
        tasks: names of tasks. Default: all tasks that both sides have.
        metrics: names of metrics. Default: all metrics of the tasks.
        common: compare only common samples, if the samples of one side are a subset of the other's.

    Raises:
        InputError: not a run folder, an ambiguous selection, or sides that are not comparable.
    """
    found_a = _run(run_a)
    found_b = found_a if run_b is None else _run(run_b)
    a, b = sides(found_a, found_b, only_a or {}, only_b or {})
    rows: list[Row] = []
    notes: list[str] = []
    flipped: list[Flips] = []
    lines: list[Sequence[tuple[LogLine, LogLine]]] = []
    seed = found_a.manifest.identity.seed
    compared = matched(a, b, _listed(tasks))
    known = {name for cell, _ in compared for name in a.run.spec(cell.task).metrics}
    _check(_listed(metrics), known)
    for cell_a, cell_b in compared:
        pairs, noted = paired(a, b, cell_a, cell_b, common)
        task = found_a.spec(cell_a.task)
        notes += noted
        lines.append(pairs)
        flipped.append(flips(cell_a, cell_b, pairs, task.grouping))
        rows += differences(cell_a, cell_b, pairs, task, seed)
    rows = _selected(rows, a, b, _listed(metrics), known)
    return Comparison(a, b, _adjusted(rows), notes, flipped, lines)


def _run(run: Run | Path | str) -> Run:
    return run if isinstance(run, Run) else Run(run)


def _listed(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


def _check(metrics: Sequence[str], known: set[str]) -> None:
    """
    Raises:
        InputError: no compared task has such a metric.
    """
    for metric in metrics:
        if metric not in known:
            raise not_found(
                f"no compared task has the metric {metric!r}", metric, known, where="--metric"
            )


def _selected(
    rows: Sequence[Row], a: Side, b: Side, metrics: Sequence[str], known: set[str]
) -> list[Row]:
    """The rows of the selected metrics.

    Raises:
        InputError: no row is left.
    """
    found = [row for row in rows if not metrics or row.metric in metrics]
    if not found:
        raise InputError(
            "no metric has a value on both sides",
            where=both(a, b),
            hint=f"Metrics of the compared tasks: {listing(known)}",
        )
    return found


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    """The rows with Holm-adjusted p-values."""
    adjusted = iter(holm([row.p for row in rows if row.p is not None]))
    return [row if row.p is None else replace(row, p_holm=next(adjusted)) for row in rows]


def title(a: Cell, b: Cell) -> str:
    """The task, and the settings other than the model in which the sides differ."""
    parts = [a.task]
    for field in CHOOSABLE[1:]:
        mine, theirs = a.grid[field], b.grid[field]
        if mine != theirs:
            parts.append(f"{field.replace('_', ' ')} {mine} (A), {theirs} (B)")
        elif field == "protocol":
            parts.append(mine)
    return " / ".join(parts)
