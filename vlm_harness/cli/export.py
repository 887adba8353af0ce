"""``vlm-harness export``: results in the formats of other tools and papers."""

from pathlib import Path

import click

from vlm_harness.cli.common import say, split
from vlm_harness.errors import InputError
from vlm_harness.export.formats import FORMATS, format_named


@click.command("export")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--format", "-f", "format_", required=True, metavar="NAME", help=f"{', '.join(FORMATS)}."
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write. [default: standard output]",
)
@click.option(
    "--model",
    "-m",
    multiple=True,
    metavar="NAME,...",
    help="Models to export. [default: all]",
)
@click.option(
    "--task",
    "-t",
    multiple=True,
    metavar="NAME,...",
    help="Tasks to export. [default: all]",
)
@click.option(
    "--metric",
    multiple=True,
    metavar="NAME,...",
    help="Metrics to export. [default: the primary one, and sample, pair and set accuracy]",
)
def export(
    runs: tuple[Path, ...],
    format_: str,
    output: Path | None,
    model: tuple[str, ...],
    task: tuple[str, ...],
    metric: tuple[str, ...],
) -> None:
    """Merge the results of all RUNs, and write them in the format of another tool.

    \b
    lm-eval     results file of lm-evaluation-harness, for one model
    model-card  YAML for the README of one model on the Hugging Face Hub
    csv         one line per result and metric
    markdown    table of models by tasks, with the best values in bold
    latex       the same table, for booktabs
    """
    dump = format_named(format_)
    if output is not None and not output.parent.is_dir():
        raise InputError(f"folder not found: '{output.parent}'", where="--output")
    from vlm_harness.export import rows

    text = dump(rows.load(runs, models=split(model), tasks=split(task), metrics=split(metric)))
    if output is not None:
        from vlm_harness.files import write_text

        write_text(output, text)
        say(str(output))
    elif format_ == "lm-eval":
        click.echo(text, nl=False)  # terminal escapes would break the JSON
    else:
        say(text, nl=False)
