"""``vlm-harness compare``: two runs, or two models of one run, on the same samples."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vlm_harness.cli.common import (
    check_page,
    data_dir_option,
    echo_json,
    json_option,
    page_options,
    say,
    split,
)
from vlm_harness.errors import InputError, listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from vlm_harness.analysis.comparable import Side
    from vlm_harness.analysis.compare import Comparison
    from vlm_harness.analysis.differences import Row
    from vlm_harness.analysis.flips import Flip, Flips
    from vlm_harness.types import Cell, Status

ONLY = "FIELD=VALUE"
CAPTION = (
    "Below B-A: 95% interval (paired bootstrap over groups). only A/B: units that only side A / "
    "only side B answered correctly. p: exact McNemar test, two-sided"
)
FLIPPED = " gained: correct on side B only; lost: correct on side A only."
ALL = "all"
ADJUSTED = "; below it: Holm-adjusted for the {} p-values shown"
CLUSTERED = (
    "* McNemar's test treats units as independent. Units of one group (pair, set, or the orders of "
    "a sample) are not, so p may be too small. Prefer the interval."
)


@click.command("compare")
@click.argument("run_a", type=click.Path(path_type=Path))
@click.argument("run_b", type=click.Path(path_type=Path), required=False)
@click.option("--model-a", metavar="NAME", help="Model of RUN_A. [default: its only model]")
@click.option(
    "--model-b",
    metavar="NAME",
    help="Model of RUN_B, or of RUN_A if RUN_B is omitted. [default: its only model]",
)
@click.option(
    "--task",
    "-t",
    multiple=True,
    metavar="NAME,...",
    help="Tasks to compare. [default: all common tasks]",
)
@click.option(
    "--metric",
    multiple=True,
    metavar="NAME,...",
    help="Metrics to compare. [default: all metrics of the tasks]",
)
@click.option("--only", multiple=True, metavar=ONLY, help="Select cells on both sides; repeatable.")
@click.option("--only-a", multiple=True, metavar=ONLY, help="Select cells on side A.")
@click.option("--only-b", multiple=True, metavar=ONLY, help="Select cells on side B.")
@click.option(
    "--flips",
    metavar="N|all",
    help="List N samples per table with different answers, or all of them.",
)
@click.option("--common", is_flag=True, help="Compare only samples that both runs have.")
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write the comparison as an HTML page.",
)
@page_options
@data_dir_option
@json_option
def compare_command(
    run_a: Path,
    run_b: Path | None,
    model_a: str | None,
    model_b: str | None,
    task: tuple[str, ...],
    metric: tuple[str, ...],
    only: tuple[str, ...],
    only_a: tuple[str, ...],
    only_b: tuple[str, ...],
    flips: str | None,
    common: bool,
    html: Path | None,
    max_size: float,
    image_size: int,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Compare RUN_A with RUN_B, or two models of RUN_A, on the same samples.

    Prints, for each task, protocol and metric, both values, their difference with a paired 95%
    interval, and McNemar's exact test. Below each table, it prints how many samples, pairs and sets
    were gained and lost. FIELD is model, protocol, command, order, decoding or image_mode.

    \b
    vlm-harness compare results/clip results/siglip
    vlm-harness compare results/both --model-a clip --model-b siglip
    vlm-harness compare results/x --only-a decoding=greedy --only-b decoding=m3id
    vlm-harness compare results/clip results/siglip --task mmvp --flips 20
    """
    from vlm_harness.analysis.compare import compare

    listed = _listed(flips)
    if html is not None:
        check_page(html, "--html")
    found = compare(
        run_a,
        run_b,
        only_a=_chosen(model_a, "--model-a", only, only_a, "--only-a"),
        only_b=_chosen(model_b, "--model-b", only, only_b, "--only-b"),
        tasks=split(task),
        metrics=split(metric),
        common=common,
    )
    if as_json:
        echo_json(found.to_dict())
    else:
        _print(found, listed)
    if html is not None:
        from vlm_harness.cli.console import counted
        from vlm_harness.report.comparison import write
        from vlm_harness.report.page import Options

        with counted("images") as progress:
            options = Options((), data_dir, max_size, image_size, progress=progress)
            written = write(found, html, options)
        say(str(written), err=as_json)


def _chosen(
    model: str | None, model_option: str, both: tuple[str, ...], own: tuple[str, ...], option: str
) -> dict[str, str]:
    """Selected values by field; options for one side override those for both."""
    from vlm_harness.analysis.sides import CHOOSABLE
    from vlm_harness.backends.decoding import canonical

    chosen = {}
    for texts, where in ((both, "--only"), (own, option)):
        for text in texts:
            field, equals, value = text.partition("=")
            if field not in CHOOSABLE or not equals:
                raise InputError(
                    f"expected {ONLY}, got {text!r}",
                    where=where,
                    hint=f"FIELD is one of {listing(CHOOSABLE)}. Example: {where} decoding=greedy",
                )
            # As in the results, where protocols that generate no text have "none".
            is_decoding = field == "decoding" and value != "none"
            chosen[field] = canonical(value) if is_decoding else value
    if model is not None:
        if chosen.get("model", model) != model:
            raise InputError(f"it names a different model than {option}", where=model_option)
        chosen["model"] = model
    return chosen


def _listed(flips: str | None) -> int | None:
    """How many flips to list per table; None for all."""
    if flips is None:
        return 0
    if flips == ALL:
        return None
    if not re.fullmatch("[1-9][0-9]{0,8}", flips):
        raise InputError(
            f"must be an integer of at least 1, or {ALL!r}, got {flips!r}",
            where="--flips",
            hint=f"--flips 20 lists 20 samples per table, --flips {ALL} lists all that differ.",
        )
    return int(flips)


# --- on the terminal ------------------------------------------------------------------------------


def _print(found: "Comparison", listed: int | None) -> None:
    from vlm_harness.analysis.compare import title
    from vlm_harness.cli.console import plain, terminal
    from vlm_harness.metrics.display import units_note

    console = terminal(100)
    by_cell: dict[tuple[Cell, Cell], list[Row]] = {}
    for row in found.rows:
        by_cell.setdefault((row.a, row.b), []).append(row)
    for side, index in ((found.a, 0), (found.b, 1)):
        console.print(plain(_headline(side, [cell[index] for cell in by_cell])))
    tests = sum(row.p is not None for row in found.rows)
    flips = {(each.a, each.b): each for each in found.flips}
    for (a, b), rows in by_cell.items():
        console.print()
        console.print(plain(title(a, b), "bold"))
        console.print(_table(rows, adjusted=tests > 1))
        _print_flips(flips[a, b], listed, console)
    adjusted = ADJUSTED.format(tests) if tests > 1 else ""
    units = units_note(dict.fromkeys(row.metric for row in found.rows))
    in_units = f"In {units}. " if units else ""
    console.print(plain(f"{in_units}{CAPTION}{adjusted}.{FLIPPED}", "dim"))
    if any(_clustered(row) for row in found.rows):
        console.print(plain(CLUSTERED, "dim"))
    for note in found.notes:
        console.print(plain(note, "yellow"))


def _headline(side: "Side", cells: "list[Cell]") -> str:
    return f"{side.name}: {cells[0].model} ({side.path})"


def _table(rows: "list[Row]", adjusted: bool) -> "Table":
    from rich import box
    from rich.table import Table

    from vlm_harness.cli.console import plain
    from vlm_harness.metrics.display import number, p_value, short, signed, signed_interval

    # Two lines per metric, so that the table fits into 80 columns.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("metric", min_width=10)
    for heading in ("n", "A", "B", "B-A", "only A/B", "p\n(Holm)" if adjusted else "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        difference = signed(row.metric, row.difference)
        if ends := signed_interval(row.metric, row.ci_low, row.ci_high):
            difference += f"\n{ends}"
        p = p_value(row.p) + ("*" if _clustered(row) else "")
        cells = [
            f"{row.n}\n{row.unit}s",
            number(row.metric, row.value_a),
            number(row.metric, row.value_b),
            difference,
            "-" if row.only_a is None else f"{row.only_a}/{row.only_b}",
            f"{p}\n({p_value(row.p_holm)})" if adjusted and row.p is not None else p,
        ]
        table.add_row(plain(short(row.metric)), *map(plain, cells))
    return table


def _clustered(row: "Row") -> bool:
    return row.p is not None and row.n_clusters < row.n


# --- which samples --------------------------------------------------------------------------------


def _print_flips(flips: "Flips", listed: int | None, console: "Console") -> None:
    from vlm_harness.cli.console import plain

    console.print(plain(_counted(flips)))
    shown = flips.samples[:listed]
    if shown:
        console.print(_flip_table(shown, console.width))
    left = len(flips.samples) - len(shown)
    if left and shown:
        console.print(plain(f"and {left} more: --flips {ALL}", "dim"))


def _counted(flips: "Flips") -> str:
    """``12 samples gained, 7 lost, 3 still incorrect (different answer), 180 the same; ...``"""
    parts = []
    for unit, count in flips.counts().items():
        part = f"{count['gained']} {unit}{'' if count['gained'] == 1 else 's'} gained, "
        part += f"{count['lost']} lost"
        if count.get("other wrong answer"):
            part += f", {count['other wrong answer']} still incorrect (different answer)"
        parts.append(part + (f", {count['same']} the same" if unit == "sample" else ""))
    return "; ".join(parts)


def _flip_table(flips: "Sequence[Flip]", width: int) -> "Table":
    """One line per sample; answers are truncated to fit the terminal, sample ids are not."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table

    from vlm_harness.cli.console import plain

    several = any(flip.order_index for flip in flips)
    headings = ("", "sample", "correct", "A", "B")
    lines = [[plain(cell) for cell in _flip_cells(flip, several)] for flip in flips]
    columns = list(zip(map(plain, headings), *lines, strict=True))
    wanted = [max(cell_len(cell.plain) for cell in column) for column in columns]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    gaps = 3 * (len(headings) - 1) + 2
    for heading, column_width in zip(headings, _column_widths(wanted, width - gaps), strict=True):
        name = heading == "sample"
        table.add_column(
            heading, width=column_width, no_wrap=not name, overflow="fold" if name else "ellipsis"
        )
    for line in lines:
        table.add_row(*line)
    return table


def _flip_cells(flip: "Flip", several_orders: bool) -> list[str]:
    order = f" (order {flip.order_index})" if several_orders else ""
    return [
        "other" if flip.kind == "other wrong answer" else flip.kind,
        flip.sample_id + order,
        _line(flip.options[flip.target]),
        _answer(flip.options, flip.prediction_a, flip.status_a, flip.text_a),
        _answer(flip.options, flip.prediction_b, flip.status_b, flip.text_b),
    ]


def _answer(
    options: "Sequence[str]", prediction: int | None, status: "Status", text: str | None
) -> str:
    """The predicted option, or why there is none; then the generated text, if it says more."""
    if prediction is None:
        answer = {"ok": "(tied)", "unparsed": "(unparsed)", "error": "(failed)"}[status]
    else:
        answer = _line(options[prediction])
    generated = _line(text or "")
    if generated.removesuffix(".").casefold() in ("", answer.casefold()):
        return answer
    return f"{answer}: {generated}"


def _line(text: str) -> str:
    return " ".join(text.split())


def _column_widths(wanted: "Sequence[int]", available: int) -> list[int]:
    """Widths that sum to at most ``available``; narrow columns leave their rest to wide ones."""
    widths = dict.fromkeys(range(len(wanted)), 1)
    for done, column in enumerate(sorted(widths, key=wanted.__getitem__)):
        widths[column] = max(1, min(wanted[column], available // (len(wanted) - done)))
        available -= widths[column]
    return list(widths.values())
