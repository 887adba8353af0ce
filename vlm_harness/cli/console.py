"""Output on the terminal: tables of results, and progress."""

import re
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from vlm_harness.cli.common import UNVERIFIED_NOTE
from vlm_harness.errors import printable
from vlm_harness.logs.labels import (
    caveats,
    common_prefix,
    row_labels,
    shown_metrics,
    varying,
)
from vlm_harness.logs.run import Run
from vlm_harness.metrics import METRICS, display
from vlm_harness.metrics.display import COMPARED
from vlm_harness.runs.state import Progress as RunProgress
from vlm_harness.types import ASKED, Cell, Estimate, ResultRow

Label = tuple[str, str, tuple[str, ...]]
"""Label of a row of the comparison: model, protocol, and the other settings that vary."""


def plain(text: str, style: str = "") -> Text:
    """Literal text of models, data and files: without markup or control characters."""
    return Text(printable(text), style)


def escaped(text: str) -> str:
    """The same, for use within markup."""
    return escape(printable(text))


def terminal(width: int = 160) -> Console:
    """Standard output; files and pipes, which have no width of their own, are ``width`` wide.

    The default of 80 columns would truncate tables.
    """
    return Console(width=None if sys.stdout.isatty() else width)


def print_results(
    results: Sequence[ResultRow],
    console: Console | None = None,
    unverified: Collection[str] = (),
    model_notes: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> None:
    """Print results as a list; results of several models as a comparison, like the paper's tables.

    A list that is wider than the terminal is printed as a comparison too, to keep numbers intact.

    Args:
        unverified: models to mark as unverified below the table.
        model_notes: notes on models by name, to print below the table.
    """
    console = console or terminal()
    compared = len({row.model for row in results}) > 1 or not _fits(_list(results), console)
    for table in _comparison(results, console.width) if compared else [_list(results)]:
        # Let the terminal wrap a single task that is too wide, rather than crop it.
        console.print(table, crop=not compared)
    console.print(f"[dim]{_caption(results, compared)}[/]", highlight=False)
    every = [caveats(row) for row in results]
    shared = _shared(every)
    for row, (_, _, fields), found in zip(results, _labels(results), every, strict=True):
        notes = [note for note in found if note not in shared]
        if notes:
            label = escaped(" / ".join([row.model, row.task, row.protocol, *fields]))
            console.print(f"[yellow]{label}:[/] {'; '.join(notes)}", highlight=False)
    for note in shared:
        console.print(f"[yellow]{note}[/]", highlight=False)
    for model, about in model_notes.items():
        for note in about:
            console.print(f"[yellow]{escaped(model)}:[/] {escaped(note)}", highlight=False)
    if unverified:
        names = ", ".join(map(escaped, unverified))
        console.print(f"[yellow]{names}:[/] {UNVERIFIED_NOTE}", highlight=False)


def _shared(every: Sequence[Sequence[str]]) -> list[str]:
    """The notes on partial runs that all of several rows have."""
    if len(every) < 2:
        return []
    partial = [note for note in every[0] if note.startswith("partial run")]
    return [note for note in partial if all(note in notes for notes in every)]


def unverified_models(run: Run) -> list[str]:
    """The models of a run whose files say ``verified: false``."""
    models = run.manifest.identity.models
    return [name for name, spec in models.items() if not spec.get("verified", True)]


def notes_on_models(run: Run) -> dict[str, list[str]]:
    """The notes on the models of a run, by name."""
    return {name: model.notes for name, model in run.manifest.models.items() if model.notes}


def _fits(table: Table, console: Console) -> bool:
    unlimited = console.options.update(width=10_000)
    return console.measure(table, options=unlimited).maximum <= console.width


def _list(results: Sequence[ResultRow]) -> Table:
    """One row per result, one column per metric: value, interval, chance."""
    names = shown_metrics(results)
    fields = varying(results)
    table = Table(header_style="bold")
    for heading in ("model", "task", "protocol"):
        table.add_column(heading, overflow="fold", min_width=8)
    for field in fields:
        table.add_column(field.replace("_", " "))
    for name in names:
        table.add_column(plain(display.short(name)), justify="right")
    table.add_column("n", justify="right")
    for row in results:
        cells = [escaped(row.grid[name]) for name in ("model", "task", "protocol", *fields)]
        cells += [_metric(name, row.metrics.get(name)) for name in names]
        table.add_row(*cells, str(row.n_samples))
    return table


def _comparison(results: Sequence[ResultRow], width: int) -> Iterator[Table]:
    """One row per model, one column per task; below them chance, and cosines of dual encoders.

    Four-way tasks, which have sets, get their own table, as in the paper. A table wider than
    ``width`` is split between tasks.
    """
    labels = _labels(results)
    tasks: dict[str, dict[Label, ResultRow]] = {}
    for label, row in zip(labels, results, strict=True):
        tasks.setdefault(row.task, {})[label] = row
    four_way = {
        row.task
        for row in results
        if any("sets" in METRICS.declared(name).needs for name in row.metrics)
    }
    for names in ([t for t in tasks if t not in four_way], [t for t in tasks if t in four_way]):
        if not names:
            continue
        prefix = common_prefix(names)
        columns = [_TaskColumn(name.removeprefix(prefix), tasks[name]) for name in names]
        left = _left_widths(labels, columns, width)
        widest = max(_table_width([*left, column.width]) for column in columns)
        at_most = max(1, (width - _table_width(left)) // (widest - _table_width(left)))
        # Split evenly: four tasks as two and two, not three and one.
        size = ceil(len(columns) / ceil(len(columns) / at_most))
        for start in range(0, len(columns), size):
            yield _table(prefix, left, labels, columns[start : start + size])


def _table(
    prefix: str, left: Sequence[int], labels: Sequence[Label], columns: Sequence["_TaskColumn"]
) -> Table:
    # All names are Text, which is not parsed for markup.
    headings = [plain(text) for text in ("model", "protocol")[: len(left)]]
    headings += [column.heading for column in columns]
    widths = [*left, *(column.width for column in columns)]
    table = Table(
        title=plain(f"{prefix}*") if prefix else None,
        title_justify="left",
        title_style="bold",
        width=_table_width(widths),
    )
    for heading, width in zip(headings, widths, strict=True):
        table.add_column(heading, width=width, overflow="fold")

    def add(name: Text | str, protocol: Text | str, cells: Sequence[Text | None]) -> None:
        if any(cells):
            table.add_row(*[name, protocol][: len(left)], *(cell or "" for cell in cells))

    for label in dict.fromkeys(labels):
        model, protocol, fields = label
        name = Text("\n").join([plain(model), *(plain(field, "dim") for field in fields)])
        add(name, plain(protocol), [column.cells.get(label) for column in columns])
    table.add_section()
    add("chance", "", [column.chance for column in columns])
    table.add_section()
    for metric in dict.fromkeys(metric for column in columns for metric, _ in column.cosines):
        for model in dict.fromkeys(model for model, _, _ in labels):
            cosines = [column.cosines.get((metric, model)) for column in columns]
            add(plain(f"{display.short(metric)} ({model})"), "", cosines)
    return table


class _TaskColumn:
    """The metrics of a task side by side in one column, since rich has no nested columns."""

    def __init__(self, name: str, rows: Mapping[Label, ResultRow]) -> None:
        # The paper's metrics, and those that all rows have. Cosines have a row of their own.
        every = [set(shown_metrics([row])) | {*COMPARED} for row in rows.values()]
        shown = [
            each
            for each in shown_metrics(list(rows.values()))
            if all(each in own for own in every) and display.unit(each) != "cosine"
        ]
        names = [each for each in dict.fromkeys([*COMPARED, *shown]) if each in shown]
        headings = [COMPARED.get(each, display.short(each)) for each in names]
        metrics = {label: [row.metrics.get(each) for each in names] for label, row in rows.items()}
        values = {label: list(map(_value, names, found)) for label, found in metrics.items()}
        below = {label: list(map(_interval, names, found)) for label, found in metrics.items()}
        chances = [
            display.chance(name, found)
            for name, found in zip(names, zip(*metrics.values(), strict=True), strict=True)
        ]
        lines = [headings, *values.values(), *below.values(), chances]
        self._widths = [max(map(cell_len, texts)) for texts in zip(*lines, strict=True)]
        # A long name is broken after underscores instead of widening the column.
        parts = re.findall("[^_]*_|[^_]+", name)
        self.width = max([sum(self._widths) + 2 * len(names) - 2, *map(cell_len, parts)])
        title = [""]
        for part in parts:
            if cell_len(title[-1] + part) > self.width:
                title.append("")
            title[-1] += part

        self.heading = Text("\n").join([*map(self._centred, title), self._line(headings)])
        self.cells = {
            label: Text("\n").join([self._line(values[label]), self._line(below[label], "dim")])
            for label in rows
        }
        self.chance = self._line(chances) if any(chances) else None
        self.cosines: dict[tuple[str, str], Text] = {}
        """By metric and model."""
        for (model, _, _), row in rows.items():
            for name, metric in row.metrics.items():
                if display.unit(name) == "cosine" and metric.value is not None:
                    self.cosines[name, model] = self._centred(_value(name, metric))

    def _line(self, texts: Sequence[str], style: str = "") -> Text:
        padded = (
            " " * (width - cell_len(text)) + text
            for text, width in zip(texts, self._widths, strict=True)
        )
        return self._centred("  ".join(padded), style)

    def _centred(self, text: str, style: str = "") -> Text:
        return plain(" " * ((self.width - cell_len(text)) // 2) + text, style)


def _labels(results: Sequence[ResultRow]) -> list[Label]:
    """The label of each result. Settings that differ only between tasks add no row."""
    return [
        (
            row.model,
            row.protocol,
            tuple(f"{field.replace('_', ' ')} {value}" for field, value in settings.items()),
        )
        for row, settings in zip(results, row_labels(results, fields=ASKED), strict=True)
    ]


def _left_widths(labels: Sequence[Label], columns: Sequence[_TaskColumn], width: int) -> list[int]:
    """Widths of the model column and, if there are several protocols, the protocol column."""
    protocols = {protocol for _, protocol, _ in labels}
    protocol = [max(map(len, ("protocol", *protocols)))] if len(protocols) > 1 else []
    lines = ["chance", *(line for model, _, fields in labels for line in (model, *fields))]
    for name, model in {key for column in columns for key in column.cosines}:
        lines += [display.short(name), f"({model})"]
    # Fold long names, to no less than 12 columns, if the widest task would not fit beside them.
    available = width - _table_width([0, *protocol, max(column.width for column in columns)])
    return [min(max(map(cell_len, lines)), max(12, available)), *protocol]


def _table_width(columns: Sequence[int]) -> int:
    """Total width, with a space on both sides of each column, and borders."""
    return sum(width + 3 for width in columns) + 1


def _metric(name: str, metric: Estimate | None) -> str:
    value = _value(name, metric)
    if metric is None or metric.value is None or display.unit(name) == "cosine":
        return value
    below = [_interval(name, metric)] if metric.ci_low is not None else []
    if metric.chance is not None:
        below.append(f"({display.chance(name, [metric])})")
    return f"{value}\n[dim]{' '.join(below)}[/]"


def _value(name: str, metric: Estimate | None) -> str:
    if metric is None:
        return ""
    return "-" if metric.value is None else display.number(name, metric.value)


def _interval(name: str, metric: Estimate | None) -> str:
    if metric is None or display.unit(name) == "cosine":
        return ""
    return display.interval(name, metric.ci_low, metric.ci_high)


def _caption(results: Sequence[ResultRow], compared: bool) -> str:
    labels = ", ".join(sorted({row.labels for row in results}))
    # Cosines are recognisable by their three decimals.
    names = [name for name in shown_metrics(results) if display.unit(name) != "cosine"]
    units = display.units_note(names)
    chance = "" if compared else "; in brackets: chance"
    parts = [
        f"In {units}." if units else "",
        f"Second line: 95% interval over groups (sets, pairs or samples){chance}.",
    ]
    return " ".join(filter(None, [*parts, f"Labels: {labels}."]))


def print_sweeps(rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print sensitivity to command and option order; nothing if neither varies."""
    if not rows:
        return
    console = console or terminal()
    units = display.units_note({row["metric"] for row in rows})
    title = "Sensitivity to command and option order"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("model\ntask\nprotocol", overflow="fold")
    for heading in ("mean", "worst", "best", "best\ncommand*", "flips", "first\noption"):
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        table.add_row(
            plain("\n".join(row[name] for name in ("model", "task", "protocol"))),
            _number(row["metric"], row["mean"]),
            *(_extreme(row["metric"], row[name]) for name in ("worst", "best", "best_command")),
            _percent(row["flip_rate"]),
            plain(
                f"{_percent(row['first_position'])}\n({_percent(row['first_position_expected'])})"
            ),
        )
    console.print(table)
    console.print(
        f"[dim]Primary metric{f', in {units}' if units else ''}. worst, best: with command and "
        "order number (0: the task's order).\nflips: % of samples whose answer changes. "
        "first option: % of answers that pick the first option shown (in brackets: expected "
        "without bias).\n"
        "*The best command, chosen on the test samples: optimistic, but often reported.[/]",
        highlight=False,
    )


def print_protocol_agreement(
    rows: Sequence[Mapping[str, Any]], console: Console | None = None
) -> None:
    """Print how often protocols agree; nothing if each task has only one."""
    if not rows:
        return
    console = console or terminal()
    names = list(dict.fromkeys(name for row in rows for name in row["protocols"]))
    table = Table(title="Agreement between protocols", title_justify="left", title_style="bold")
    table.add_column("model\ntask", overflow="fold")
    table.add_column("")
    for name in names:
        table.add_column(plain(name), justify="right")
    for row in rows:
        label = plain(f"{row['model']}\n{row['task']}")
        for name, shares in zip(row["protocols"], row["matrix"], strict=True):
            found = dict(zip(row["protocols"], shares, strict=True))
            cells = [_percent(found[each]) if each in found else "" for each in names]
            table.add_row(label, plain(name), *cells)
            label = Text("")
        table.add_section()
    console.print(table)
    console.print(
        "[dim]% of samples with the same answer under both protocols, of those answered under "
        "both. Diagonal: % answered.[/]",
        highlight=False,
    )


def print_invariance(rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print which answers and scores other batch sizes changed."""
    if not rows:
        return
    console = console or terminal()
    table = Table(title="Rerun at other batch sizes", title_justify="left", title_style="bold")
    table.add_column("model", overflow="fold")
    table.add_column("protocol")
    table.add_column("dtype")
    for heading in ("batch", "n", "flips", "different\ntexts", "largest score\ndifference"):
        table.add_column(heading, justify="right")
    for row in rows:
        largest = row["max_score_difference"]
        table.add_row(
            *(plain(str(row[name])) for name in ("model", "protocol", "dtype", "batch_size", "n")),
            *(plain(str(row[name])) for name in ("flips", "texts")),
            "" if largest is None else f"{largest:.1e}",
        )
    console.print(table)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _number(metric: str, value: float | None) -> str:
    return "-" if value is None else display.number(metric, value)


def _extreme(metric: str, found: Mapping[str, Any] | None) -> Text:
    """A value, with its command and order number."""
    if found is None:
        return Text("-")
    order = f", order {found['order_index']}" if "order_index" in found else ""
    return plain(f"{_number(metric, found['value'])}\n{found['command']}{order}")


@dataclass
class _Burst:
    """Samples that were answered together, as in a batch."""

    began: float
    ended: float
    count: int
    """Number of samples answered up to its end."""


class _Pace:
    """Recent samples per second, measured between the ends of batches.

    The samples of a batch arrive milliseconds apart, so that ``rich``'s own estimate from single
    samples (``Task.speed``) would be thousands per second.
    """

    BURST, WINDOW = 0.5, 30.0  # seconds

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._count = 0
        self._bursts = deque[_Burst]()

    def begin(self) -> None:
        """Reset: another model is loaded, and loading time does not count."""
        self._bursts.clear()

    def add(self) -> None:
        now = self._clock()
        self._count += 1
        if self._bursts and now - self._bursts[-1].began < self.BURST:
            self._bursts[-1].ended, self._bursts[-1].count = now, self._count
        else:
            self._bursts.append(_Burst(now, now, self._count))
        # Keep the last two bursts even if the first of them is older than the window.
        while len(self._bursts) > 2 and self._bursts[1].ended < now - self.WINDOW:
            self._bursts.popleft()

    @property
    def rate(self) -> float | None:
        """Samples per second; None before the second batch."""
        if len(self._bursts) < 2:
            return None
        first, last = self._bursts[0], self._bursts[-1]
        return (last.count - first.count) / (last.ended - first.ended)


def _speed(rate: float | None) -> str:
    if rate is None:
        return ""
    return f"{rate:.{0 if rate >= 100 else 1}f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"


def _time_left(rate: float | None, left: float) -> str:
    return "" if rate is None else f"{timedelta(seconds=round(left / rate))} left"


class ProgressBar(RunProgress):
    """A progress bar on stderr; plain lines if stderr is not a terminal."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        names = max(8, self._console.width - 50)
        self._bar = Progress(
            # On narrow terminals, shorten the bar and the names, not the numbers.
            TextColumn("{task.description}", table_column=Column(no_wrap=True, max_width=names)),
            BarColumn(),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[speed]}", style="progress.data.speed"),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[left]}", style="progress.remaining"),
            console=self._console,
            disable=quiet or not sys.stderr.isatty(),
        )
        self._quiet = quiet
        self._id: Any = None
        self._left = 0
        self._pace = _Pace(self._bar.get_time)

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, run: Path, total: int, done: int) -> None:
        self._say(f"run folder: {run}" + (f" ({done} of {total} already done)" if done else ""))
        self._left = total - done
        self._pace.begin()
        self._id = self._bar.add_task("", total=total, completed=done, speed="", left="")

    def loading(self, model: str) -> None:
        self._pace.begin()
        self._say(f"loading {model}")

    def advance(self, cell: Cell) -> None:
        self._left -= 1
        self._pace.add()
        self._bar.update(
            self._id,
            advance=1,
            speed=_speed(self._pace.rate),
            left=_time_left(self._pace.rate, self._left),
            description=escaped(f"{cell.model} {cell.task} {cell.protocol}"),
        )

    def warn(self, message: str) -> None:
        self._say(f"[yellow]warning:[/] {escaped(message)}", markup=True)

    def _say(self, text: str, markup: bool = False) -> None:
        if not self._quiet:
            self._console.print(text, markup=markup, highlight=False, soft_wrap=True)


@contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for other long work; nothing if stderr is not a terminal.

    Yields a function of (done, total).
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(
        *columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True
    )
    with bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
