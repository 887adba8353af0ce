"""``vlm-harness report``: one HTML page about one or more runs."""

from pathlib import Path

import click

from vlm_harness.cli.agreement import embedder
from vlm_harness.cli.common import (
    FiniteRange,
    check_page,
    data_dir_option,
    include_path_option,
    page_options,
    say,
    split,
)


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="HTML file. [default: RUN/report.html]"
)
@click.option(
    "--task",
    "-t",
    multiple=True,
    metavar="NAME,...",
    help="Tasks to include. [default: all]",
)
@page_options
@click.option(
    "--encoder",
    "-e",
    metavar="MODEL",
    help="Encoder that computes pair cosines. [default: cosines from the log]",
)
@click.option(
    "--threshold",
    type=FiniteRange(-1, 1),
    default=0.95,
    show_default=True,
    help="Cosine above which a pair is an erroneous agreement.",
)
@click.option(
    "--device", help="For --encoder: cpu, cuda, cuda:1 or mps. [default: the best available]"
)
@data_dir_option
@include_path_option
def report_command(
    runs: tuple[Path, ...],
    output: Path | None,
    task: tuple[str, ...],
    max_size: float,
    image_size: int,
    encoder: str | None,
    threshold: float,
    device: str | None,
    data_dir: str | None,
    include_path: tuple[str, ...],
) -> None:
    """Write one HTML page about one or more RUNs: scores with intervals and chance, categories,
    calibration, accuracy by image-pair similarity, and every sample with its images and answers.

    The page is a single file that makes no network requests. Images are read from the run's data
    directory unless --data-dir is given.

    \b
    vlm-harness report results/demo
    vlm-harness report results/clip results/llava --output both.html --max-size 10
    """
    from vlm_harness.analysis import agreement
    from vlm_harness.cli.console import counted
    from vlm_harness.logs.lines import read_manifest
    from vlm_harness.report.page import Options
    from vlm_harness.report.report import write

    path = output or runs[0] / "report.html"
    check_page(path, "--output")
    for run in runs:
        read_manifest(run)  # report a mistyped folder before loading a model
    measure = agreement.from_log
    if encoder is not None:
        measure = embedder(encoder, include_path, device, data_dir)
    with counted("images") as progress:
        options = Options(split(task), data_dir, max_size, image_size, threshold, measure, progress)
        written = write(runs, path, options)
    for note in written.notes:
        say(note, err=True)
    say(str(written))
