"""What a person sees on the terminal: the table of results, and progress."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from rich.table import Table

from vlm_harness import evaluator
from vlm_harness.plan import Cell

SHORT = {
    "individual_accuracy": "individual",
    "pair_accuracy": "pair",
    "set_accuracy": "set",
    "mean_pair_cosine": "pair cosine",
    "whatsup_official_pair_accuracy": "pair/(n/2)",
    "whatsup_official_set_accuracy": "set/(n/4)",
}


def print_results(results: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """One row a result, one column a metric: value in percent, interval, chance."""
    # A file or a pipe has no width of its own; a table cut to 80 columns could not be read there.
    console = console or Console(width=None if sys.stdout.isatty() else 160)
    names = list(
        dict.fromkeys(
            name
            for row in results
            for name, metric in row["metrics"].items()
            if metric["value"] is not None or name == row["primary_metric"]
        )
    )
    if not any(row["n_incomplete"] for row in results):
        # Over whole groups the official formula is the plain one: no need to show it twice.
        names = [name for name in names if "official" not in name]
    many = {
        field: len({row[field] for row in results} - {"none"}) > 1
        for field in ("command", "order", "decoding", "image_mode")
    }
    table = Table(header_style="bold")
    for heading in ("model", "task", "protocol"):
        table.add_column(heading, overflow="fold", min_width=8)
    for field, varies in many.items():
        if varies:
            table.add_column(field.replace("_", " "))
    for name in names:
        table.add_column(SHORT.get(name, name), justify="right")
    table.add_column("n", justify="right")
    for row in results:
        cells = [escape(row[key]) for key in ("model", "task", "protocol")]
        cells += [escape(row[field]) for field, varies in many.items() if varies]
        cells += [_metric(name, row["metrics"].get(name)) for name in names]
        table.add_row(*cells, str(row["n_samples"]))
    console.print(table)
    console.print(f"[dim]{_caption(results)}[/]", highlight=False)
    for row in results:
        notes = _notes(row)
        if notes:
            label = escape(f"{row['model']} / {row['task']} / {row['protocol']}")
            console.print(f"[yellow]{label}:[/] {', '.join(notes)}", highlight=False)


def _metric(name: str, metric: Mapping[str, Any] | None) -> str:
    if metric is None:
        return ""
    value, low, high = metric["value"], metric["ci_low"], metric["ci_high"]
    if value is None:
        return "-"
    if "cosine" in name:
        return f"{value:.3f}"
    below = [] if low is None else [f"{100 * low:.0f}-{100 * high:.0f}"]
    if metric["chance"] is not None:
        below.append(f"({100 * metric['chance']:.3g})")
    return f"{100 * value:.1f}\n[dim]{' '.join(below)}[/]"


def _caption(results: Sequence[Mapping[str, Any]]) -> str:
    labels = ", ".join(sorted({row["labels"] for row in results}))
    return f"percent; below: 95% interval over groups, (chance); labels: {labels}"


def _notes(row: Mapping[str, Any]) -> list[str]:
    notes = []
    if row["n_samples"] < row["n_expected"]:
        notes.append(f"{row['n_expected'] - row['n_samples']} of {row['n_expected']} not answered")
    for kind, count in row["groups"].items():
        if count["n_incomplete"]:
            notes.append(f"{count['n_incomplete']} of {count['n']} {kind}s incomplete, not scored")
    for field, text in (("n_unparsed", "unparsed"), ("n_errors", "failed")):
        if row[field]:
            notes.append(f"{row[field]} {text} (count as wrong)")
    if row["n_tied"]:
        notes.append(f"{row['n_tied']} tied (count as wrong)")
    if row["limit"]:
        notes.append(f"limited to {row['limit']}: not a complete run")
    return notes


class ProgressBar(evaluator.Progress):
    """A progress bar on stderr; plain lines where stderr is no terminal."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not sys.stderr.isatty(),
        )
        self._quiet = quiet
        self._id: Any = None

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, run: Path, total: int, done: int) -> None:
        self._say(f"run folder: {run}" + (f" ({done} of {total} done before)" if done else ""))
        self._id = self._bar.add_task("", total=total, completed=done)

    def loading(self, model: str) -> None:
        self._say(f"loading {model}")

    def advance(self, cell: Cell) -> None:
        variant = cell.variant
        self._bar.update(
            self._id,
            advance=1,
            description=escape(f"{variant.model} {variant.task} {variant.protocol}"),
        )

    def warn(self, message: str) -> None:
        self._say(f"[yellow]warning:[/] {escape(message)}", markup=True)

    def _say(self, text: str, markup: bool = False) -> None:
        if not self._quiet:
            self._console.print(text, markup=markup, highlight=False, soft_wrap=True)
