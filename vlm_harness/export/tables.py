"""Tables of results: Markdown and LaTeX for people, CSV for programs."""

import csv as csv_module
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vlm_harness.errors import printable
from vlm_harness.export.rows import Result, labels
from vlm_harness.logs.group_row import PER_TASK
from vlm_harness.logs.labels import RUN, common_prefix, score_title
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
    """A number as printed."""

    value: str
    interval: tuple[str, str] | None = None
    best: bool = False
    partial: bool = False
    """Whether samples of the task are missing or failed."""


@dataclass(frozen=True)
class Row:
    """The names of a row, and its cells by column."""

    names: Sequence[str]
    cells: Sequence[Printed | None]


@dataclass(frozen=True)
class Table:
    """The content of all formats for people, in plain text."""

    headings: Sequence[str]
    """Headings of the name columns."""
    columns: Sequence[Column]
    rows: Sequence[Row]
    chance: Sequence[str]
    notes: Sequence[str]


# --- from results to a table ----------------------------------------------------------------------


class Key(NamedTuple):
    """A column: a metric of a task, or a score of a group."""

    task: str
    version: int
    is_group: bool
    name: str
    measure: str
    """The metric that declares unit and direction."""


def table(results: Sequence[Result], intervals: str) -> Table:
    """One row per model (and protocol and settings), one column per task and metric.

    ``intervals`` tells readers of the notes where to find intervals.
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
    prefix = common_prefix([key.task for key in keys if not key.is_group])
    return Table(
        headings=[field.replace("_", " ") for field in fields],
        columns=[_heading(key, keys, prefix) for key in keys],
        rows=[
            Row(_names(members, fields), [_cell(key, own.get(key), best[key]) for key in keys])
            for members, own in zip(rows.values(), found, strict=True)
        ],
        chance=[
            chance(key.measure, [row[key][0] for row in found if key in row], "–") for key in keys
        ],
        notes=_notes(results, fields, prefix, intervals, any(best.values())),
    )


def _fields(results: Sequence[Result], named: Sequence[Mapping[str, str]]) -> list[str]:
    """The fields that name rows: the model, and those with several values in some task."""
    values_of: dict[tuple[str, str], set[str]] = {}
    for result in results:
        for name in ("protocol", *SETTINGS):
            # A setting that does not apply, such as the decoding of scored options, is no value.
            value = _shown(result, name)
            values_of.setdefault((name, result.row.task), set()).update([value] if value else [])
    several = {name for (name, _), values in values_of.items() if len(values) > 1}
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
    """Tasks in the order of the runs, then groups; the paper's metrics first, in its order."""
    tasks: dict[tuple[str, int], dict[Key, None]] = {}
    for result in results:
        known = tasks.setdefault((result.row.task, result.version), {})
        known.update(dict.fromkeys(_key(result, name) for name in result.metrics))
    order = [*COMPARED]

    def place(key: Key) -> int:
        return order.index(key.name) if key.name in order else len(order)

    return [key for keys in tasks.values() for key in sorted(keys, key=place)]


def _key(result: Result, name: str) -> Key:
    is_group = bool(result.members)
    return Key(result.row.task, result.version, is_group, name, result.measure(name))


def _heading(key: Key, keys: Sequence[Key], prefix: str) -> Column:
    several = len({other.version for other in keys if other.task == key.task}) > 1
    name = key.task if key.is_group else key.task.removeprefix(prefix)
    metric = score_title(key.name) if key.is_group else COMPARED.get(key.name, short(key.name))
    return Column(printable(name + (f" v{key.version}" if several else "")), printable(metric))


Found = Mapping[Key, tuple[Estimate, bool]]
"""Metrics of a row by column, and whether their results are complete."""


def _metrics_of(members: Sequence[Result]) -> Found:
    return {
        _key(result, name): (result.row.metrics[name], result.row.complete)
        for result in members
        for name in result.metrics
    }


def _best(key: Key, rows: Sequence[Found]) -> str | None:
    """The best value of a column, as printed, so that values that look equal are equal.

    None if there are fewer than two values, or the metric has no direction. Partial results only
    compete if no result is complete.
    """
    known = [row[key] for row in rows if key in row and row[key][0].value is not None]
    if len(known) < 2:
        return None
    candidates = [metric for metric, complete in known if complete] or [
        metric for metric, _ in known
    ]
    values = [metric.value for metric in candidates if metric.value is not None]
    best = METRICS.declared(key.measure).best(values)
    return None if best is None else number(key.measure, best)


def _cell(key: Key, found: tuple[Estimate, bool] | None, best: str | None) -> Printed | None:
    if found is None:
        return None
    metric, complete = found
    if metric.value is None:
        return Printed("–", partial=not complete)
    value = number(key.measure, metric.value)
    interval = None
    if metric.ci_low is not None and metric.ci_high is not None:
        interval = number(key.measure, metric.ci_low), number(key.measure, metric.ci_high)
    return Printed(value, interval, best=value == best, partial=not complete)


def _notes(
    results: Sequence[Result], fields: Sequence[str], prefix: str, intervals: str, best: bool
) -> list[str]:
    measures = (result.measure(name) for result in results for name in result.metrics)
    units = units_note(dict.fromkeys(measures))
    parts = [units, f"{intervals}: 95% interval over groups"]
    parts += ["bold: the best of a column"] if best else []
    text = "; ".join(filter(None, parts))
    notes = [f"{text[0].upper()}{text[1:]}."]
    if prefix:
        notes.append(f"Task names start with {prefix}.")
    for name in ("protocol", *SETTINGS):
        values = {_shown(result, name) for result in results} - {"", PER_TASK}
        default = {SETTINGS[name].usual} if name in ASKED else set[str]()
        if name not in fields and len(values) == 1 and values != default:
            notes.append(f"{name.replace('_', ' ').capitalize()}: {values.pop()}.")
    if not all(result.row.complete for result in results):
        notes.append("*: some samples are missing or failed.")
    return [printable(note) for note in notes]


# --- CSV ------------------------------------------------------------------------------------------


def csv(results: Sequence[Result]) -> str:
    """One line per result and metric, with numbers as in ``results.json``.

    Lines of groups have the name of the group as ``task``, and the name of a score as ``metric``.
    """
    stream = io.StringIO()
    writer = csv_module.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for result in results:
        for name in result.metrics:
            values = {
                **result.row.to_dict(),
                **result.row.metrics[name].to_dict(),
                "task": result.row.task,
                "version": result.version,
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
    # Spreadsheets treat text that starts with these characters as a formula.
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


# --- Markdown -------------------------------------------------------------------------------------


def markdown(results: Sequence[Result]) -> str:
    """A table in the syntax of GitHub and most other renderers, with notes below it."""
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
    """Escape text for one cell, so that none of it is markup, HTML, a formula or a cell border."""
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
    # At the start of a row, these would be read as arguments of the preceding line break.
    "[": "{[}",
    "*": "{*}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


WIDEST = 6
"""Number of numeric columns that fit on a page beside the model names."""


def latex(results: Sequence[Result]) -> str:
    """A table float in booktabs style, with the interval below each value.

    Tasks that do not fit on the width of a page continue in further tables below.
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
    """A tabular with some of the tasks."""
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
    """Groups of tasks that fit side by side."""
    panels: list[list[tuple[str, int, int]]] = []
    for span in _spans([column.task for column in columns]):
        if panels and span[2] - panels[-1][0][1] <= WIDEST:
            panels[-1].append(span)
        else:
            panels.append([span])
    return panels


def _spans(tasks: Sequence[str]) -> list[tuple[str, int, int]]:
    """Consecutive columns of the same task, as (task, first, end)."""
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
    value = _latex_number(cell.value)
    mark = "\\rlap{*}" if cell.partial else ""  # keeps the decimal points aligned
    return (f"\\textbf{{{value}}}" if cell.best else value) + mark


def _latex_interval(cell: Printed | None) -> str:
    if cell is None or cell.interval is None:
        return ""
    return f"{{\\scriptsize {_latex_number('–'.join(cell.interval))}}}"


def _latex_number(text: str) -> str:
    return text.replace("-", "$-$").replace("–", "--")


def latex_text(text: str) -> str:
    """Escape text, so that it is typeset literally in any position."""
    plain = "".join(LATEX.get(character, character) for character in " ".join(text.split()))
    # Two of these in a row would become a dash or a closing quotation mark.
    return re.sub(r"-(?=-)|'(?=')", r"\g<0>{}", plain)
