"""Scores of groups of tasks on the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from vlm_harness.cli.console import escaped, plain, terminal
from vlm_harness.errors import listing
from vlm_harness.logs.group_row import AggregateEstimate, GroupRow
from vlm_harness.logs.labels import group_caveats, score_title, varying
from vlm_harness.metrics import display


def print_groups(rows: Sequence[GroupRow], console: Console | None = None) -> None:
    """Print the scores of groups, one row for each score; nothing if there are no groups."""
    if not rows:
        return
    console = console or terminal()
    known = [row for row in rows if not row.missing]
    if known:
        console.print(_table(known))
    notes: dict[tuple[str, str], list[GroupRow]] = {}
    for row in rows:
        for text in group_caveats(row):
            notes.setdefault((row.task, text), []).append(row)
    for (group, text), having in notes.items():
        everywhere = len(having) == sum(row.task == group for row in rows)
        of = "" if everywhere else f" ({listing({f'{r.model} {r.protocol}' for r in having})})"
        name = escaped(f"group {group}{of}")
        console.print(f"[yellow]{name}:[/] {escaped(text)}", highlight=False)


def _table(rows: Sequence[GroupRow]) -> Table:
    fields = varying(rows)
    table = Table(title="Groups of tasks", title_justify="left", title_style="bold")
    for heading in ("model", "group", "protocol", *(name.replace("_", " ") for name in fields)):
        table.add_column(heading, overflow="fold")
    table.add_column("score", overflow="fold")
    for heading in ("value", "tasks", "n"):
        table.add_column(heading, justify="right")
    for row in rows:
        cells = [plain(row.grid[name]) for name in ("model", "task", "protocol", *fields)]
        for name, score in row.aggregates.items():
            value = _value(score)
            n_tasks = str(len(row.members))
            table.add_row(*cells, plain(score_title(name)), value, n_tasks, str(score.n))
    return table


def _value(score: AggregateEstimate) -> str:
    """Value, and below it interval and chance, as in the table of tasks."""
    metric = score.of[0]
    if score.value is None:
        return "-"
    below = [display.interval(metric, score.ci_low, score.ci_high)]
    if score.chance is not None:
        below.append(f"({display.chance(metric, [score])})")
    text = " ".join(filter(None, below))
    return display.number(metric, score.value) + (f"\n[dim]{text}[/]" if text else "")
