"""What tells cells of the grid apart, which metrics are shown, and how results are to be read."""

from collections.abc import Iterable, Sequence
from itertools import takewhile

from vlm_harness.metrics import METRICS, display
from vlm_harness.types import ASKED, GRID, SETTINGS, GridFields, ResultRow

RUN = "run"
"""What tells cells of several runs apart, where nothing else does."""


def common_prefix(names: Iterable[str]) -> str:
    """What several names begin with, up to an underscore; of a single name nothing."""
    several = set(names)
    if len(several) < 2:
        return ""
    parts = zip(*(name.split("_")[:-1] for name in several), strict=False)
    return "".join(f"{same[0]}_" for same in takewhile(lambda each: len(set(each)) == 1, parts))


def varying(rows: Sequence[GridFields]) -> list[str]:
    """Of the settings that a model is asked under, those worth a column: rows differ in them, or
    are not as usual.

    What a task's first command is called is its own affair.
    """
    found = []
    for name in ASKED:
        values = {row.grid[name] for row in rows} - {SETTINGS[name].absent}
        if len(values) > 1 or (name != "command" and values - {SETTINGS[name].usual}):
            found.append(name)
    return found


def row_labels(
    cells: Sequence[GridFields],
    runs: Sequence[str] | None = None,
    first: Sequence[str] = ("model", "protocol"),
    fields: Iterable[str] = tuple(GRID)[2:],
    brief: bool = False,
) -> list[dict[str, str]]:
    """What beside the fields ``first`` tells each cell from others of its task, by field.

    What differs between tasks alone tells nothing apart: a model has one label in all tasks that it
    was asked in one way.

    Args:
        runs: of each cell, where they may be of several.
        brief: leaves out fields that differ only between cells that a field before them tells
            apart, as commands do between protocols.
    """
    known = [
        {**cell.grid, **({} if runs is None else {RUN: run})}
        for cell, run in zip(cells, runs or [""] * len(cells), strict=True)
    ]
    labels = [tuple(each[name] for name in first) for each in known]
    found: list[dict[str, str]] = [{} for _ in known]
    for name in (*fields, *(() if runs is None else (RUN,))):
        if name in first:
            continue
        values: dict[tuple[tuple[str, ...], str], set[str]] = {}
        for label, each in zip(labels, known, strict=True):
            values.setdefault((label, each["task"]), set()).add(each[name])
        several = {label for (label, _), own in values.items() if len(own) > 1}
        for number, each in enumerate(known):
            if labels[number] in several:
                found[number][name] = each[name]
                labels[number] += (each[name],) if brief else ()
    return found


def labels(cells: Sequence[tuple[str, GridFields]]) -> list[str]:
    """The model of each cell of some runs (by name), and what tells it from others of its task."""
    runs, of_runs = [run for run, _ in cells], [cell for _, cell in cells]
    told = row_labels(of_runs, runs, first=["model"], brief=True)
    return [
        " / ".join([cell.model, *(f"{_words(name)}{value}" for name, value in each.items())])
        for (_, cell), each in zip(cells, told, strict=True)
    ]


def _words(name: str) -> str:
    return SETTINGS[name].words if name in SETTINGS else ""


# --- results --------------------------------------------------------------------------------------


def shown_metrics(rows: Sequence[ResultRow]) -> list[str]:
    """Those that have a value somewhere, and those to quote."""
    primary = {row.primary_metric for row in rows}
    names = dict.fromkeys(
        name
        for row in rows
        for name, metric in row.metrics.items()
        if metric.value is not None or name == row.primary_metric
    )
    complete = not any(row.n_incomplete for row in rows)

    def repeats(name: str) -> bool:
        """Whether it gives what a plainer metric beside it gives."""
        equals = METRICS.declared(name).equals
        return (
            equals is not None and equals.when == "groups are complete" and equals.metric in names
        )

    return [name for name in names if name in primary or not (complete and repeats(name))]


def caveats(row: ResultRow) -> list[str]:
    """What must be known to read a row of results rightly."""
    notes = []
    if row.n_samples < row.n_expected:
        notes.append(f"{row.n_expected - row.n_samples} of {row.n_expected} not answered")
    for kind, count in row.groups.items():
        if count.n_incomplete:
            notes.append(f"{count.n_incomplete} of {count.n} {kind}s incomplete, not scored")
    for n, text in ((row.n_unparsed, "unparsed"), (row.n_errors, "failed"), (row.n_tied, "tied")):
        if n:
            notes.append(f"{n} {text} (count as wrong)")
    if "pair" in row.groups:
        complete = row.groups["pair"].n - row.groups["pair"].n_incomplete
        for name, metric in row.metrics.items():
            omits = METRICS.declared(name).omits
            if omits and metric.value is not None and metric.n < complete:
                notes.append(f"{display.short(name)} over {metric.n} of {complete} pairs: {omits}")
    if row.limit:
        notes.append(f"limited to {row.limit}: not a complete run")
    elif not row.complete and row.n_samples == row.n_expected and not row.n_errors:
        notes.append("some of the samples alone: not a complete run")
    return notes


def results_table(rows: Sequence[ResultRow]) -> str:
    """Results as a table for a notebook."""
    names, settings = shown_metrics(rows), varying(rows)
    heads = ["model", "task", "protocol", *(name.replace("_", " ") for name in settings)]
    heads += [*map(display.short, names), "n"]
    lines = []
    for row in rows:
        cells = [row.grid[name] for name in ("model", "task", "protocol", *settings)]
        for name in names:
            metric = row.metrics.get(name)
            if metric is None or metric.value is None:
                cells.append("–")
                continue
            ends = display.interval(name, metric.ci_low, metric.ci_high, "–")
            cells.append(display.number(name, metric.value) + (f" ({ends})" if ends else ""))
        lines.append([*cells, str(row.n_samples)])
    note = "; ".join(filter(None, [display.units_note(names), "95% intervals in brackets"]))
    return display.html_table(heads, lines, [note])
