"""``vlm-harness reproduce``: rerun the cells of a published table."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from vlm_harness.cli.common import (
    data_dir_option,
    echo_json,
    include_path_option,
    json_option,
    registry,
    say,
    split,
)
from vlm_harness.errors import InputError

if TYPE_CHECKING:
    from vlm_harness.published.reproduce import Here, Measured
    from vlm_harness.published.tables import TableCell

Line = tuple[str, ...]
SHOWN = {"here": "available", "not here": "missing", "quoted": "cited", "none": "none"}
"""Marks as the table shows them, by their names in ``--json``."""


@click.command("reproduce")
@click.argument("table", metavar="TABLE")
@click.option(
    "--model", "-m", multiple=True, metavar="NAME,...", help="Only these models of the table."
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="List the cells, and whether their weights and data are available.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Evaluate at most N samples per task, in complete groups (at least one group).",
)
@click.option(
    "--best-command",
    is_flag=True,
    help="Run all commands and print the best per cell, like the paper's Tables 12 and 13.",
)
@click.option(
    "--output-dir",
    metavar="DIR",
    default="results",
    show_default=True,
    help="Folder in which run folders are created.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Samples per batch. [default: auto, adapts to the memory]",
)
@click.option("--device", help="cpu, cuda, cuda:1 or mps. [default: the best available]")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    help="Floating-point type. [default: auto]",
)
@click.option("--trust-remote-code", is_flag=True, help="Allow code from the checkpoint to run.")
@data_dir_option
@include_path_option
@json_option
def reproduce(
    table: str,
    model: tuple[str, ...],
    dry_run: bool,
    limit: int | None,
    best_command: bool,
    data_dir: str | None,
    include_path: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Rerun the models of a published TABLE and print the results next to the published numbers.

    TABLE is the number of a table in the paper (1 to 7, 9 to 13), or a YAML file in the same
    format. Cells with missing weights or data are reported and skipped; weights that can be
    downloaded from the hub count as available. A published number agrees if it is within the 95%
    interval of the measured value.
    """
    from vlm_harness.cli.console import ProgressBar
    from vlm_harness.published.reproduce import Here, measure
    from vlm_harness.published.tables import cells, load

    found = registry(include_path)
    every = cells(load(table), found, split(model))
    here = Here(found, data_dir)
    if dry_run:
        _list(every, here, as_json)
        return
    wanted = [cell for cell in every if cell.repeatable]
    if all(here.problems(cell) for cell in wanted):
        raise InputError(
            f"none of the {len(every)} cells can be run: weights or data are missing"
            if wanted
            else "no row of the table names a model that can be rerun",
            hint="\n".join([*_reasons(wanted, here), "See `vlm-harness reproduce --dry-run`."]),
        )
    with ProgressBar(quiet=as_json) as progress:
        measured, stopped = measure(
            wanted,
            here,
            progress=progress,
            argv=sys.argv,
            best_command=best_command,
            limit=limit,
            include_path=list(include_path),
            **{name: value for name, value in options.items() if value is not None},
        )
    if as_json:
        echo_json(
            [{**dataclasses.asdict(each), "agrees": each.agrees, "limit": limit}
             for each in measured]
        )  # fmt: skip
    else:
        _compare(measured, len(every) - len(wanted), limit)
    if stopped:
        raise stopped


def _list(every: Sequence["TableCell"], here: "Here", as_json: bool) -> None:
    state = {
        cell: (
            "quoted" if cell.cited else "none" if cell.model is None else _mark(here.model(cell)),
            _mark(here.data(cell)),
        )
        for cell in every
    }
    if as_json:
        echo_json(
            [{**dataclasses.asdict(cell), "weights": weights, "data": data}
             for cell, (weights, data) in state.items()]
        )  # fmt: skip
        return
    _print(
        ("row", "model", "task", "metric", "protocol", "published", "weights", "data"),
        [
            (
                cell.name,
                cell.model or "-",
                *_what(cell),
                _number(cell.value, cell),
                *(SHOWN[mark] for mark in marks),
            )
            for cell, marks in state.items()
        ],
    )
    ready = sum(marks == ("here", "here") for marks in state.values())
    say(f"{len(every)} cells; {ready} can run now. In percent, except cosines.")
    _echo_notes(every)
    for reason in _reasons([cell for cell in every if cell.repeatable], here):
        say(reason)


def _compare(measured: Sequence["Measured"], left_out: int, limit: int | None) -> None:
    lines = []
    for each in measured:
        cell = each.cell
        interval = ""
        if each.low is not None and each.high is not None:
            interval = f"{_number(each.low, cell)} to {_number(each.high, cell)}"
        verdict = {None: "-", True: "within", False: "outside"}[each.agrees]
        lines.append(
            (
                cell.model or "-",
                *_what(cell),
                _number(cell.value, cell),
                _number(each.value, cell) + (f" ({each.command})" if each.command else ""),
                interval,
                "not measured" if each.problem else verdict,
            )
        )
    _print(
        ("model", "task", "metric", "protocol", "published", "measured", "95% interval", ""), lines
    )
    agreeing = [each.agrees for each in measured if each.agrees is not None]
    say(
        f"{sum(agreeing)} of {len(agreeing)} published numbers are within the 95% interval. "
        "In percent, except cosines."
    )
    if any(each.command for each in measured):
        say("(command): the best command, chosen on the test samples: optimistic")
    if limit:
        say(f"partial run: --limit {limit}")
    if left_out:
        say(f"{left_out} cells skipped: cited from other papers, or no model to rerun")
    _echo_notes([each.cell for each in measured])
    for problem in dict.fromkeys(each.problem for each in measured if each.problem):
        say(f"not measured: {problem}")


def _print(headings: Line, lines: Sequence[Line]) -> None:
    from rich.table import Table

    from vlm_harness.cli.console import escaped, terminal

    table = Table(header_style="bold")
    for heading in headings:
        numeric = heading in ("published", "measured", "95% interval")
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for line in lines:
        table.add_row(*map(escaped, line))
    terminal(200).print(table)  # wide in a pipe, where folded text could not be searched


def _what(cell: "TableCell") -> Line:
    how = cell.protocol if cell.decoding == "greedy" else f"{cell.protocol} {cell.decoding}"
    return cell.task, cell.metric, how


def _number(value: float | None, cell: "TableCell") -> str:
    return "-" if value is None else f"{value:.{cell.digits}f}"


def _mark(problem: Any) -> str:
    return "not here" if problem else "here"


def _echo_notes(every: Sequence["TableCell"]) -> None:
    for name, note in dict.fromkeys((cell.name, cell.note) for cell in every if cell.note):
        say(f"{name}: {note}")


def _reasons(every: Sequence["TableCell"], here: "Here") -> list[str]:
    """Each reason once: several tasks may lack the same file."""
    return list(dict.fromkeys(p.message for cell in every for p in here.problems(cell)))
