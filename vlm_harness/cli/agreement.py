"""``vlm-harness agreement``: do models fail on pairs whose images an encoder finds similar?"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vlm_harness.cli.common import (
    FiniteRange,
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
    from vlm_harness.analysis.agreement import Embedder


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--encoder",
    "-e",
    metavar="MODEL",
    help="Dual encoder or vision-only checkpoint that embeds the images.",
)
@click.option("--from-log", is_flag=True, help="Use the cosines in the log of a dual encoder.")
@click.option(
    "--task",
    "-t",
    multiple=True,
    metavar="NAME,...",
    help="Tasks to analyse. [default: all paired tasks]",
)
@click.option(
    "--threshold",
    type=FiniteRange(-1, 1),
    default=0.95,
    show_default=True,
    help="Pairs above this cosine count as erroneous agreements.",
)
@click.option(
    "--bins",
    type=click.IntRange(1, 50),
    default=5,
    show_default=True,
    help="Number of equal-count cosine bins.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Save a plot: .pdf, .png or .svg.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Images per batch."
)
@click.option("--device", help="cpu, cuda, cuda:1 or mps. [default: the best available]")
@data_dir_option
@include_path_option
@json_option
def agreement(
    runs: tuple[Path, ...],
    encoder: str | None,
    from_log: bool,
    task: tuple[str, ...],
    threshold: float,
    bins: int,
    plot: Path | None,
    batch_size: int,
    device: str | None,
    data_dir: str | None,
    include_path: tuple[str, ...],
    as_json: bool,
) -> None:
    """Relate the accuracy of the models in RUN to the cosine similarity of each image pair.

    --encoder computes the cosines from the run's images, read from the run's data directory unless
    --data-dir is given. --from-log uses the cosines that a dual encoder in RUN logged.
    """
    if (encoder is None) == (not from_log):
        raise InputError(
            "give --encoder MODEL, or --from-log"
            if encoder is None
            else "give either --encoder MODEL or --from-log, not both",
            where="--encoder",
        )
    from vlm_harness.report import agreement_plot

    if plot is not None:
        agreement_plot.check(plot)

    from vlm_harness.analysis import agreement as analysis
    from vlm_harness.logs.lines import read_manifest

    for run in runs:
        read_manifest(run)  # report a mistyped folder before loading a model
    measure = (
        analysis.from_log
        if encoder is None
        else embedder(encoder, include_path, device, data_dir, batch_size)
    )
    reports = analysis.analyse(runs, measure, split(task), threshold, bins)
    if plot is not None:
        agreement_plot.write(reports, plot)
    if as_json:
        echo_json({"reports": reports})
        return
    for report in reports:
        _print(report)
    if plot is not None:
        say(str(plot))


def embedder(
    encoder: str,
    include_path: tuple[str, ...],
    device: str | None,
    data_dir: str | None,
    batch_size: int = 32,
) -> "Embedder":
    """The encoder of ``--encoder``, ready to measure pairs."""
    from vlm_harness.analysis.agreement import Embedder
    from vlm_harness.backends.embeddings import open_encoder
    from vlm_harness.backends.interface import LoadOptions

    options = LoadOptions(device=device)
    name, model = open_encoder(encoder, registry(include_path), options, "--encoder")

    def tell(text: str) -> None:
        say(text, err=True)

    return Embedder(name, model, data_dir, batch_size, tell)


def _print(report: Mapping[str, Any]) -> None:
    from rich.table import Table

    from vlm_harness.cli.console import plain, terminal

    console = terminal()

    def line(text: str) -> None:
        console.print(plain(text), soft_wrap=True)

    mean, share, ranks = (report[k] for k in ("mean_cosine", "share_above", "rank_correlation"))
    threshold = f"{report['threshold']:g}"
    console.print(plain(f"{report['task']}: image similarity by {report['encoder']}", "bold"))
    line(
        f"{_pairs(report['n_pairs'])}; mean cosine {_number(mean)}; above {threshold}, in "
        f"percent: {_percent(share)}"
    )
    if ranks:
        line(
            f"Spearman correlation within each embedding pair: mean {ranks['mean']:.3f}, "
            f"minimum {ranks['min']:.3f}"
        )
    for why, n in report["left_out"].items():
        line(f"{_pairs(n)} left out: {why}")
    if not report["n_pairs"]:
        return
    table = Table(
        "cosine", title="Pair and individual accuracy by cosine, in percent", title_justify="left"
    )
    for bounds in report["bins"]:
        table.add_column(
            f"{bounds['low']:.3f} to {bounds['high']:.3f}\n{_pairs(bounds['n'])}", justify="right"
        )
    for row in report["rows"]:
        cells = [
            f"{_percent(each['pair_accuracy'])}\n{_percent(each['individual_accuracy'])}"
            for each in row["bins"]
        ]
        table.add_row(plain(row["label"]), *cells)
    console.print(table)
    table = Table("pairs", title_justify="left")
    for heading in (
        *(
            f"{sign} {threshold}:\n{outcome}"
            for sign in ("<=", ">")
            for outcome in ("correct", "incorrect", "pair accuracy")
        ),
        "Spearman: cosine\nand outcome",
    ):
        table.add_column(heading, justify="right")
    for row in report["rows"]:
        cells = []
        for side in ("disagree", "agree"):
            found = row["quadrants"][side]
            cells += [str(found["right"]), str(found["wrong"]), _percent(found["pair_accuracy"])]
        rho = row["spearman"]
        last = f"{rho['rho']:.3f}\np = {rho['p']:.2g}, n = {rho['n']}" if rho else "-"
        table.add_row(plain(row["label"]), *cells, last)
    console.print(table)
    if any(_counted(row) > report["n_pairs"] for row in report["rows"]):
        line("With several option orders, each pair counts once per order.")


def _pairs(n: int) -> str:
    return f"{n} pair{'' if n == 1 else 's'}"


def _counted(row: Mapping[str, Any]) -> int:
    """The number of pairs, or pairs times option orders, in the quadrants of a row."""
    return sum(int(side["right"] + side["wrong"]) for side in row["quadrants"].values())


def _percent(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return "-"
    value, low, high = (estimate[key] for key in ("value", "ci_low", "ci_high"))
    return f"{100 * value:.1f}" + ("" if low is None else f" ({100 * low:.0f}-{100 * high:.0f})")


def _number(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return "-"
    value, low, high = (estimate[key] for key in ("value", "ci_low", "ci_high"))
    return f"{value:.3f}" + ("" if low is None else f" ({low:.3f}-{high:.3f})")
