"""A table of results, and its ways onto paper: Markdown, LaTeX; and CSV for programs."""

import csv as csv_module
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlm_harness.errors import printable
from vlm_harness.export.rows import Result, labels
from vlm_harness.logs.labels import RUN, common_prefix
from vlm_harness.metrics import METRICS
from vlm_harness.metrics.display import COMPARED, chance, number, short, units_note
from vlm_harness.types import ASKED, SETTINGS, Estimate

CSV_COLUMNS = (
    "model", "task", "version", "protocol", *SETTINGS,
    "metric", "value", "ci_low", "ci_high", "n", "chance", "n_samples", "n_unparsed", "n_errors",
    "complete", "run",
)  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A metric of a task."""

    task: str
    metric: str


@dataclass(frozen=True)
class Printed:
    """A number as it is printed."""

    value: str
    interval: tuple[str, str] | None = None
    best: bool = False
    partial: bool = False
    """Whether a part of the task's samples is missing, or failed."""


@dataclass(frozen=True)
class Row:
    """What names a row, and its cells by column."""

    names: Sequence[str]
    cells: Sequence[Printed | None]


@dataclass(frozen=True)
class Table:
    """What all formats for people show; plain text throughout."""

    headings: Sequence[str]
    """Over the names of rows."""
    columns: Sequence[Column]
    rows: Sequence[Row]
    chance: Sequence[str]
    notes: Sequence[str]


# --- from results to a table ----------------------------------------------------------------------

Key = tuple[str, int, str]
"""Task, its version, metric."""


def table(results: Sequence[Result], below: str) -> Table:
    """One row a model (and protocol, and way of asking), one column a task and metric.

    ``below`` says for the notes where intervals stand.
    """
    named = labels(results)
    fields = _fields(results, named)
    rows: dict[tuple[Any, ...], list[Result]] = {}
    for result, label in zip(results, named, strict=True):
        key = (result.row.model, result.row.protocol, *label.items())
        rows.setdefault(key, []).append(result)
    keys = _columns(results)
    found = [_metrics_of(members) for members in rows.values()]
    best = {key: _best(key, found) for key in keys}
    prefix = common_prefix([task for task, _, _ in keys])
    return Table(
        headings=[field.replace("_", " ") for field in fields],
        columns=[_heading(key, keys, prefix) for key in keys],
        rows=[
            Row(_names(members, fields), [_cell(key, own.get(key), best[key]) for key in keys])
            for members, own in zip(rows.values(), found, strict=True)
        ],
        chance=[chance(key[2], [row[key][0] for row in found if key in row], "–") for key in keys],
        notes=_notes(results, fields, prefix, below, any(best.values())),
    )


def _fields(results: Sequence[Result], named: Sequence[Mapping[str, str]]) -> list[str]:
    """What rows are named by: the model, and how it was asked where some task has several ways."""
    ways: dict[tuple[str, str], set[str]] = {}
    for result in results:
        for name in ("protocol", *SETTINGS):
            # Where there is no such setting, as no decoding of scored options, it is no other way.
            value = _shown(result, name)
            ways.setdefault((name, result.row.task), set()).update([value] if value else [])
    several = {name for (name, _), values in ways.items() if len(values) > 1}
    several |= {name for label in named for name in label}
    if len({result.row.protocol for result in results}) > 1:
        several.add("protocol")
    return ["model", *(name for name in ("protocol", *SETTINGS, RUN) if name in several)]


def _shown(result: Result, name: str) -> str:
    value = result[name]
    absent = name in SETTINGS and value == SETTINGS[name].absent
    return "" if absent else printable(value)


def _names(members: Sequence[Result], fields: Sequence[str]) -> list[str]:
    return [
        ", ".join(filter(None, dict.fromkeys(_shown(result, field) for result in members)))
        for field in fields
    ]


def _columns(results: Sequence[Result]) -> list[Key]:
    """Tasks in the order of the runs; of each the paper's metrics first, in its order."""
    metrics: dict[tuple[str, int], dict[str, None]] = {}
    for result in results:
        known = metrics.setdefault((result.row.task, result.row.task_version), {})
        known.update(dict.fromkeys(result.metrics))
    order = [*COMPARED]
    return [
        (task, version, name)
        for (task, version), names in metrics.items()
        for name in sorted(names, key=lambda n: order.index(n) if n in order else len(order))
    ]


def _heading(key: Key, keys: Sequence[Key], prefix: str) -> Column:
    task, version, metric = key
    several = len({other for name, other, _ in keys if name == task}) > 1
    name = task.removeprefix(prefix) + (f" v{version}" if several else "")
    return Column(printable(name), printable(COMPARED.get(metric, short(metric))))


Found = Mapping[Key, tuple[Estimate, bool]]
"""Metrics of a row by column, and whether the result that each is of is complete."""


def _metrics_of(members: Sequence[Result]) -> Found:
    return {
        (result.row.task, result.row.task_version, name): (
            result.row.metrics[name],
            result.row.complete,
        )
        for result in members
        for name in result.metrics
    }


def _best(key: Key, rows: Sequence[Found]) -> str | None:
    """The best value of a column as it is printed, so that what looks equal is equal.

    None where there is nothing to be better than, or better means nothing. A part of the samples
    is no rival of all of them.
    """
    known = [row[key] for row in rows if key in row and row[key][0].value is not None]
    if len(known) < 2:
        return None
    rivals = [metric for metric, complete in known if complete] or [metric for metric, _ in known]
    best = METRICS.declared(key[2]).best([m.value for m in rivals if m.value is not None])
    return None if best is None else number(key[2], best)


def _cell(key: Key, found: tuple[Estimate, bool] | None, best: str | None) -> Printed | None:
    if found is None:
        return None
    metric, complete = found
    name = key[2]
    if metric.value is None:
        return Printed("–", partial=not complete)
    value = number(name, metric.value)
    interval = None
    if metric.ci_low is not None and metric.ci_high is not None:
        interval = number(name, metric.ci_low), number(name, metric.ci_high)
    return Printed(value, interval, best=value == best, partial=not complete)


def _notes(
    results: Sequence[Result], fields: Sequence[str], prefix: str, below: str, best: bool
) -> list[str]:
    units = units_note(dict.fromkeys(name for result in results for name in result.metrics))
    parts = [units, f"{below}: 95% interval over groups"]
    parts += ["bold: the best of a column"] if best else []
    text = "; ".join(filter(None, parts))
    notes = [f"{text[0].upper()}{text[1:]}."]
    if prefix:
        notes.append(f"The names of tasks begin with {prefix}.")
    for name in ("protocol", *SETTINGS):
        values = {_shown(result, name) for result in results} - {""}
        goes_without_saying = {SETTINGS[name].usual} if name in ASKED else set[str]()
        if name not in fields and len(values) == 1 and values != goes_without_saying:
            notes.append(f"{name.replace('_', ' ').capitalize()}: {values.pop()}.")
    if not all(result.row.complete for result in results):
        notes.append("*: over a part of the samples, or some of them failed.")
    return [printable(note) for note in notes]


# --- CSV ------------------------------------------------------------------------------------------


def csv(results: Sequence[Result]) -> str:
    """One line a result and metric, numbers as in ``results.json``."""
    stream = io.StringIO()
    writer = csv_module.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for result in results:
        for name in result.metrics:
            values = {
                **result.row.to_dict(),
                **result.row.metrics[name].to_dict(),
                "version": result.row.task_version,
                "metric": name,
                "run": result.run.name,
            }
            writer.writerow([_csv_value(values[column]) for column in CSV_COLUMNS])
    return stream.getvalue()


def _csv_value(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    text = printable(value)
    # Spreadsheets take a text that begins so for a formula, and run it.
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


# --- Markdown -------------------------------------------------------------------------------------


def markdown(results: Sequence[Result]) -> str:
    """A table as GitHub and most others read it, and below it what its numbers are."""
    shown = table(results, "in brackets")
    headings = [f"{column.task}: {column.metric}" for column in shown.columns]
    lines = [
        _line([*map(markdown_text, shown.headings), *map(markdown_text, headings)]),
        _line([":--"] * len(shown.headings) + ["--:"] * len(headings)),
    ]
    for row in shown.rows:
        lines.append(_line([*map(markdown_text, row.names), *map(_markdown_cell, row.cells)]))
    if any(shown.chance):
        names = ["chance", *[""] * (len(shown.headings) - 1)]
        lines.append(_line([*names, *shown.chance]))
    notes = " ".join(map(markdown_text, shown.notes))
    return "\n".join([*lines, "", notes, ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Printed | None) -> str:
    if cell is None:
        return ""
    value = f"**{cell.value}**" if cell.best else cell.value
    mark = r"\*" if cell.partial else ""
    return value + mark + (f" ({'–'.join(cell.interval)})" if cell.interval else "")


def markdown_text(text: str) -> str:
    """Text that stands in one cell as itself: no markup, no HTML, no formula, no further cell."""
    return re.sub(r"[\\`*_{}\[\]<>|~&$!#]", r"\\\g<0>", " ".join(text.split()))


# --- LaTeX ----------------------------------------------------------------------------------------

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "–": "--",
    # At the beginning of a row they would be read as arguments of the line break before it.
    "[": "{[}",
    "*": "{*}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


WIDEST = 6
"""Columns of numbers that fit on a page beside the names of models."""


def latex(results: Sequence[Result]) -> str:
    """A float with a table in the manner of booktabs; below each value its interval.

    Of more tasks than a page is wide, several below each other.
    """
    shown = table(results, "below")
    return "\n".join([
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        "  \\setlength{\\tabcolsep}{4pt}",
        f"  \\caption{{{' '.join(map(latex_text, shown.notes))}}}",
        "\n\n  \\medskip\n".join(_tabular(shown, spans) for spans in _panels(shown.columns)),
        "\\end{table}",
        "",
    ])  # fmt: skip


def _tabular(shown: Table, spans: Sequence[tuple[str, int, int]]) -> str:
    """Some of the tasks."""
    names, first, last = len(shown.headings), spans[0][1], spans[-1][2]
    blank = [""] * (names - 1)
    part = slice(first, last)
    offset = names - first
    rules = (f"\\cmidrule(lr){{{offset + a + 1}-{offset + b}}}" for _, a, b in spans)
    lines = [
        f"  \\begin{{tabular}}{{{'l' * names}{'r' * (last - first)}}}",
        "    \\toprule",
        _latex_row(["", *blank, *(_latex_heading(task, b - a) for task, a, b in spans)]),
        f"    {' '.join(rules)}",
        _latex_row(map(latex_text, [*shown.headings, *(c.metric for c in shown.columns[part])])),
        "    \\midrule",
    ]
    for index, row in enumerate(shown.rows):
        cells = row.cells[part]
        lines += ["    \\addlinespace[2pt]"] if index else []
        lines.append(_latex_row([*map(latex_text, row.names), *map(_latex_value, cells)]))
        if any(cell and cell.interval for cell in cells):
            lines.append(_latex_row(["", *blank, *map(_latex_interval, cells)]))
    if any(shown.chance[part]):
        chance = map(latex_text, shown.chance[part])
        lines += ["    \\midrule", _latex_row(["chance", *blank, *chance])]
    return "\n".join([*lines, "    \\bottomrule", "  \\end{tabular}"])


def _panels(columns: Sequence[Column]) -> list[list[tuple[str, int, int]]]:
    """The tasks that stand side by side."""
    panels: list[list[tuple[str, int, int]]] = []
    for span in _spans([column.task for column in columns]):
        if panels and span[2] - panels[-1][0][1] <= WIDEST:
            panels[-1].append(span)
        else:
            panels.append([span])
    return panels


def _spans(tasks: Sequence[str]) -> list[tuple[str, int, int]]:
    """Each run of the same task, and the columns that it goes over."""
    found: list[tuple[str, int, int]] = []
    for index, task in enumerate(tasks):
        if found and found[-1][0] == task:
            found[-1] = (task, found[-1][1], index + 1)
        else:
            found.append((task, index, index + 1))
    return found


def _latex_row(cells: Iterable[str]) -> str:
    return f"    {' & '.join(cells).rstrip()} \\\\"


def _latex_heading(task: str, columns: int) -> str:
    return f"\\multicolumn{{{columns}}}{{c}}{{{latex_text(task)}}}"


def _latex_value(cell: Printed | None) -> str:
    if cell is None:
        return ""
    value = _latexnumber(cell.value)
    mark = "\\rlap{*}" if cell.partial else ""  # which leaves the decimal points below each other
    return (f"\\textbf{{{value}}}" if cell.best else value) + mark


def _latex_interval(cell: Printed | None) -> str:
    if cell is None or cell.interval is None:
        return ""
    return f"{{\\scriptsize {_latexnumber('–'.join(cell.interval))}}}"


def _latexnumber(text: str) -> str:
    return text.replace("-", "$-$").replace("–", "--")


def latex_text(text: str) -> str:
    """Text that is set as itself, wherever it stands."""
    plain = "".join(LATEX.get(character, character) for character in " ".join(text.split()))
    # Two of these next to each other would be set as a dash, or as a closing quotation mark.
    return re.sub(r"-(?=-)|'(?=')", r"\g<0>{}", plain)
