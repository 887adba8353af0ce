"""Labels of cells in tables and plots, the metrics to show, and caveats of results."""

from collections.abc import Iterable, Sequence
from itertools import takewhile

from vlm_harness.errors import listing
from vlm_harness.logs.group_row import AggregateEstimate, GroupRow
from vlm_harness.metrics import METRICS, display
from vlm_harness.types import ASKED, GRID, SETTINGS, GridFields, ResultRow

RUN = "run"
"""Label field for cells of several runs that have equal settings."""


def common_prefix(names: Iterable[str]) -> str:
    """The common prefix of several names, up to an underscore; empty for a single name."""
    distinct = set(names)
    if len(distinct) < 2:
        return ""
    parts = zip(*(name.split("_")[:-1] for name in distinct), strict=False)
    return "".join(f"{same[0]}_" for same in takewhile(lambda each: len(set(each)) == 1, parts))


def varying(rows: Sequence[GridFields]) -> list[str]:
    """The settings to show as columns: those that differ between rows or from their default.

    A command is only shown if rows differ in it, since tasks name their default command freely.
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
    """For each cell, the fields besides ``first`` that distinguish it from others of its task.

    Fields that differ only between tasks are omitted, so that a model with one cell per task has
    the same label in all tasks.

    Args:
        runs: the run of each cell, if they may come from several runs.
        brief: omit fields that differ only between cells that an earlier field already
            distinguishes, such as commands of different protocols.
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
        ambiguous = {label for (label, _), own in values.items() if len(own) > 1}
        for number, each in enumerate(known):
            if labels[number] in ambiguous:
                found[number][name] = each[name]
                labels[number] += (each[name],) if brief else ()
    return found


def labels(cells: Sequence[tuple[str, GridFields]]) -> list[str]:
    """A label for each (run name, cell): the model, and the fields that distinguish the cell."""
    runs, run_cells = [run for run, _ in cells], [cell for _, cell in cells]
    fields = row_labels(run_cells, runs, first=["model"], brief=True)
    return [
        " / ".join([cell.model, *(f"{_prefix(name)}{value}" for name, value in each.items())])
        for (_, cell), each in zip(cells, fields, strict=True)
    ]


def _prefix(name: str) -> str:
    return SETTINGS[name].words if name in SETTINGS else ""


# --- results --------------------------------------------------------------------------------------


def shown_metrics(rows: Sequence[ResultRow]) -> list[str]:
    """The metrics to show: those that have a value in some row, and the primary metrics."""
    primary = {row.primary_metric for row in rows}
    names = dict.fromkeys(
        name
        for row in rows
        for name, metric in row.metrics.items()
        if metric.value is not None or name == row.primary_metric
    )
    complete = not any(row.n_incomplete for row in rows)

    def repeats(name: str) -> bool:
        """Whether the metric equals a simpler one that is shown as well."""
        equals = METRICS.declared(name).equals
        return (
            equals is not None and equals.when == "groups are complete" and equals.metric in names
        )

    return [name for name in names if name in primary or not (complete and repeats(name))]


MANY_UNPARSED = 0.05
"""Share of unparsed answers, or difference in it, from which scores are in doubt."""


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def caveats(row: ResultRow) -> list[str]:
    """Notes that are needed to interpret a row of results."""
    notes = []
    if row.n_samples < row.n_expected:
        n_missing = row.n_expected - row.n_samples
        notes.append(f"{n_missing} of {_count(row.n_expected, 'sample')} not answered")
    for kind, count in row.groups.items():
        if count.n_incomplete:
            notes.append(f"{count.n_incomplete} of {_count(count.n, kind)} incomplete (not scored)")
    if row.n_unparsed:
        share = row.n_unparsed / row.n_samples
        notes.append(f"{row.n_unparsed} unparsed, {share:.1%} (count as wrong)")
        if share >= MANY_UNPARSED:
            notes.append("many unparsed: see `vlm-harness extraction-report RUN`")
    for n, text in ((row.n_errors, "failed"), (row.n_tied, "tied")):
        if n:
            notes.append(f"{n} {text} (count as wrong)")
    for name, metrics in row.readings.items():
        values = (
            f"{display.short(metric)} {display.number(metric, found.value)}"
            for metric, found in metrics.items()
            if metric in shown_metrics([row]) and found.value is not None
        )
        notes.append(f"as read by {name}: {', '.join(values)}")
    if row.n_texts_cut:
        notes.append(f"{_count(row.n_texts_cut, 'text')} cut at max_new_tokens")
    if row.n_over_limit:
        of = _count(row.n_samples, "sample")
        notes.append(
            f"{row.n_over_limit} of {of} with a prompt or caption longer than the model's limit "
            "(captions are truncated)"
        )
    if "pair" in row.groups:
        complete = row.groups["pair"].n - row.groups["pair"].n_incomplete
        for name, metric in row.metrics.items():
            omits = METRICS.declared(name).omits
            if omits and metric.value is not None and metric.n < complete:
                pairs = _count(complete, "pair")
                notes.append(f"{display.short(name)} over {metric.n} of {pairs} ({omits})")
    if row.limit:
        notes.append(f"partial run: --limit {row.limit}")
    elif not row.complete and row.n_samples == row.n_expected and not row.n_errors:
        notes.append("partial run: only selected samples (--samples)")
    return notes


def results_table(rows: Sequence[ResultRow]) -> str:
    """Results as an HTML table for a notebook."""
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


# --- groups of tasks ------------------------------------------------------------------------------


def score_title(name: str) -> str:
    """The name of a score of a group, as in headings."""
    return name.replace("_", " ")


def group_caveats(row: GroupRow) -> list[str]:
    """Notes that are needed to interpret the scores of a group."""
    notes = []
    if row.missing:
        of = f"{len(row.missing)} of {len(row.members)}"
        notes.append(f"not computed, missing tasks: {listing(row.missing, 6)} ({of})")
    if row.incomplete:
        notes.append(f"incomplete tasks: {listing(row.incomplete, 6)}")
    return notes


def groups_table(rows: Sequence[GroupRow]) -> str:
    """The scores of groups as an HTML table for a notebook; empty without groups."""
    if not rows:
        return ""
    settings = varying(rows)
    heads = ["model", "group", "protocol", *(name.replace("_", " ") for name in settings)]
    lines, notes = [], []
    for row in rows:
        cells = [row.grid[name] for name in ("model", "task", "protocol", *settings)]
        for name, score in row.aggregates.items():
            lines.append([*cells, score_title(name), _score_text(score), str(score.n)])
        notes += [f"{row.task}: {text}" for text in group_caveats(row)]
    return display.html_table([*heads, "score", "value", "n"], lines, dict.fromkeys(notes))


def _score_text(score: AggregateEstimate) -> str:
    if score.value is None:
        return "–"
    ends = display.interval(score.of[0], score.ci_low, score.ci_high, "–")
    return display.number(score.of[0], score.value) + (f" ({ends})" if ends else "")
