"""``vlm-harness extraction-report``: what was not parsed, and what other extractors would read."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vlm_harness.cli.common import echo_json, json_option, say, split

if TYPE_CHECKING:
    from vlm_harness.analysis.extraction import CellReport


@click.command("extraction-report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--task", "-t", multiple=True, metavar="NAME,...", help="Tasks to report. [default: all]"
)
@click.option(
    "--shapes", type=click.IntRange(0), default=10, show_default=True,
    help="Maximum number of shapes of unparsed answers per task and model.",
)  # fmt: skip
@click.option(
    "--examples", type=click.IntRange(0), default=2, show_default=True,
    help="Number of examples per shape.",
)  # fmt: skip
@json_option
def extraction_report_command(
    run: Path, task: tuple[str, ...], shapes: int, examples: int, as_json: bool
) -> None:
    """Show how the generated answers of RUN were read.

    Lists the share of unparsed answers per model, unparsed answers grouped by shape (the beginning
    of the text, with options and numbers replaced) with examples, and the scores that other
    extractors would give. Needs no model and no data.
    """
    from vlm_harness.analysis.extraction import extraction_report
    from vlm_harness.logs.run import Run

    reports = extraction_report(Run(run), split(task), examples)
    if as_json:
        echo_json({"run": str(run), "cells": [_data(each, shapes) for each in reports]})
    elif not reports:
        say("The run has no generated answers: only the protocol generate reads texts.")
    else:
        _print(reports, shapes)


def _data(report: "CellReport", n_shapes: int) -> dict[str, Any]:
    return {
        **report.cell.grid,
        "n": report.n,
        "n_unparsed": report.n_unparsed,
        "reasons": dict(report.reasons),
        "shapes": [vars(shape) for shape in report.shapes[:n_shapes]],
        "primary_metric": report.primary_metric,
        "scores": dict(report.scores),
    }


def _print(reports: "list[CellReport]", n_shapes: int) -> None:
    from rich import box
    from rich.table import Table

    from vlm_harness.analysis.extraction import by_model
    from vlm_harness.cli.console import escaped, plain, terminal
    from vlm_harness.errors import clip
    from vlm_harness.metrics import display

    console = terminal()
    table = Table("model", "answers", "unparsed", "share", box=box.SIMPLE_HEAD)
    for model, (unparsed, n) in by_model(reports).items():
        share = f"{unparsed / n:.1%}" if n else "–"
        table.add_row(plain(model), str(n), str(unparsed), share)
    console.print(table)
    for report in reports:
        cell = report.cell
        label = " / ".join(
            [cell.model, cell.task, *([cell.command] if cell.command != "none" else [])]
        )
        counts = ", ".join(f"{n} {reason}" for reason, n in report.reasons.items()) or "all parsed"
        console.print(f"[bold]{escaped(label)}[/]: {counts}", highlight=False)
        metric = display.short(report.primary_metric)
        table = Table("extractor", metric, "unparsed", "read differently", box=box.SIMPLE_HEAD)
        for name, found in report.scores.items():
            value = found["value"]
            number = "–" if value is None else display.number(report.primary_metric, value)
            table.add_row(name, number, str(found["n_unparsed"]), str(found["n_different"]))
        console.print(table)
        for shape in report.shapes[:n_shapes]:
            console.print(f"  {shape.n} {shape.reason}: {escaped(shape.text)}", highlight=False)
            for example in shape.examples:
                text = clip(" ".join(example["text"].split()), 160)
                console.print(
                    f"    [dim]{escaped(example['sample_id'])}: {escaped(text)}[/]", highlight=False
                )
        if len(report.shapes) > n_shapes:
            console.print(f"  and {len(report.shapes) - n_shapes} more (--shapes)")
