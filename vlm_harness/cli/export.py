"""``vlm-harness export``: results as other tools read them, and as papers print them."""

from pathlib import Path

import click

from vlm_harness.cli.common import say, split
from vlm_harness.errors import InputError
from vlm_harness.export.formats import FORMATS, format_named


@click.command("export")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--format", "-f", "format_", required=True, metavar="NAME", help=", ".join(FORMATS))
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="[standard output]"
)
@click.option("--model", "-m", multiple=True, metavar="NAME,...", help="[all]")
@click.option("--task", "-t", multiple=True, metavar="NAME,...", help="[all]")
@click.option(
    "--metric",
    multiple=True,
    metavar="NAME,...",
    help="[the task's primary one, and accuracy of samples, pairs and sets]",
)
def export(
    runs: tuple[Path, ...],
    format_: str,
    output: Path | None,
    model: tuple[str, ...],
    task: tuple[str, ...],
    metric: tuple[str, ...],
) -> None:
    """Write the results of each RUN, put together, in the format of another tool.

    \b
    lm-eval     results file of lm-evaluation-harness, of one model
    model-card  YAML for the README of one model on the Hugging Face hub
    csv         one line a result and metric
    markdown    a table: models by tasks, the best in bold
    latex       the same for booktabs
    """
    dump = format_named(format_)
    if output is not None and not output.parent.is_dir():
        raise InputError(f"there is no folder {output.parent}", where="--output")
    from vlm_harness.export import rows

    text = dump(rows.load(runs, models=split(model), tasks=split(task), metrics=split(metric)))
    if output is not None:
        from vlm_harness.files import write_text

        write_text(output, text)
        say(str(output))
    elif format_ == "lm-eval":
        click.echo(text, nl=False)  # escapes that are no JSON would make another file of it
    else:
        say(text, nl=False)
