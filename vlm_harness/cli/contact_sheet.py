"""``vlm-harness contact-sheet``: a few pairs of a run as one picture."""

from pathlib import Path

import click

from vlm_harness.cli.common import data_dir_option, say, split
from vlm_harness.errors import InputError


@click.command("contact-sheet")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--task", "-t", multiple=True, metavar="NAME,...", help="[those with few options]")
@click.option(
    "--pairs", type=click.IntRange(1, 60), default=6, show_default=True, help="How many, at most."
)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="A PNG file [RUN/contact_sheet.png]."
)
@data_dir_option
def contact_sheet(
    run: Path, task: tuple[str, ...], pairs: int, output: Path | None, data_dir: str | None
) -> None:
    """Draw a few pairs of RUN, and what every model answered, as one picture.

    Pairs that tell the models apart come first. Images are read from where the run read them,
    unless --data-dir says otherwise.
    """
    path = output or run / "contact_sheet.png"
    if path.suffix.lower() != ".png":
        raise InputError(f"the sheet is a PNG file, and {path} is none", where="--output")

    from vlm_harness.report.contact_sheet import write
    from vlm_harness.report.pairs import collect

    write(collect(run, split(task), pairs, data_dir), path)
    say(str(path))
