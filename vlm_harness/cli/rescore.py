"""``vlm-harness rescore``: extract answers and compute scores again from the log of a run."""

from pathlib import Path
from typing import Literal

import click

from vlm_harness.cli.common import echo_json, json_option, say


@click.command("rescore")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--labels",
    type=click.Choice(["corrected", "original"]),
    help="Labels to score with. [default: as in RUN]",
)
@json_option
def rescore_command(
    run: Path, labels: Literal["corrected", "original"] | None, as_json: bool
) -> None:
    """Extract answers and compute scores again from the log of RUN. Needs no model and no data."""
    from vlm_harness.cli.console import notes_on_models, print_results, unverified_models
    from vlm_harness.cli.groups import print_groups
    from vlm_harness.logs.rescore import rescore, results_path
    from vlm_harness.logs.run import Run

    recorded = Run(run)
    rows = rescore(recorded, labels)
    if as_json:
        content = rows.to_dict()
        del content["schema"]
        echo_json({"run": str(run), **content})
    else:
        print_results(
            rows,
            unverified=unverified_models(recorded),
            model_notes=notes_on_models(recorded),
        )
        print_groups(rows.groups)
        say(str(results_path(recorded, labels)))
