"""``vlm-harness contact-sheet``: a few pairs of a run as one image."""

from pathlib import Path

import click

from vlm_harness.cli.common import data_dir_option, say, split
from vlm_harness.errors import InputError


@click.command("contact-sheet")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--task",
    "-t",
    multiple=True,
    metavar="NAME,...",
    help="Tasks to show. [default: tasks with few options]",
)
@click.option(
    "--pairs",
    type=click.IntRange(1, 60),
    default=6,
    show_default=True,
    help="Maximum number of pairs.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="PNG file. [default: RUN/contact_sheet.png]",
)
@data_dir_option
def contact_sheet(
    run: Path, task: tuple[str, ...], pairs: int, output: Path | None, data_dir: str | None
) -> None:
    """Render a few pairs of RUN, with the answer of every model, as one PNG image.

    Pairs that the models answered differently come first. Images are read from the run's data
    directory unless --data-dir is given.
    """
    path = output or run / "contact_sheet.png"
    if path.suffix.lower() != ".png":
        raise InputError(f"expected a .png file, got {path}", where="--output")

    from vlm_harness.report.contact_sheet import write
    from vlm_harness.report.pairs import collect

    write(collect(run, split(task), pairs, data_dir), path)
    say(str(path))
