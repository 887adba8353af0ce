"""``vlm-harness report``: runs as one HTML page."""

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
    "--output", "-o", type=click.Path(path_type=Path), help="An HTML file [RUN/report.html]."
)
@click.option("--task", "-t", multiple=True, metavar="NAME,...", help="[all]")
@page_options
@click.option("--encoder", "-e", metavar="MODEL", help="Cosines of pairs by this [as logged].")
@click.option("--threshold", type=FiniteRange(-1, 1), default=0.95, show_default=True)
@click.option("--device", help="For --encoder: cpu, cuda, cuda:1, mps [the best there is].")
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
    """Write RUN, or several, as one HTML page: scores with intervals and chance, categories,
    calibration, cosines against outcomes, and every sample with its images and answers.

    The page opens from disk, carries all it needs in itself and asks nothing of any host. Images
    are read from where the run read them, unless --data-dir says otherwise.

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
        read_manifest(run)  # a mistyped folder is said before a model is loaded
    measure = agreement.from_log
    if encoder is not None:
        measure = embedder(encoder, include_path, device, data_dir)
    with counted("images") as progress:
        options = Options(split(task), data_dir, max_size, image_size, threshold, measure, progress)
        written = write(runs, path, options)
    for note in written.notes:
        say(note, err=True)
    say(str(written))
