"""``vlm-harness rescore``: the right half of a run again, from its log alone."""

from pathlib import Path
from typing import Literal

import click

from vlm_harness.cli.common import echo_json, json_option, say


@click.command("rescore")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--labels", type=click.Choice(["corrected", "original"]), help="[the run's own]")
@json_option
def rescore_command(
    run: Path, labels: Literal["corrected", "original"] | None, as_json: bool
) -> None:
    """Extract, score and summarise again, from the log of RUN alone: no model, no data."""
    from vlm_harness.cli.console import print_results
    from vlm_harness.logs.rescore import rescore, results_path
    from vlm_harness.logs.run import Run

    recorded = Run(run)
    rows = rescore(recorded, labels)
    if as_json:
        echo_json({"run": str(run), "results": rows.to_dict()["results"]})
    else:
        print_results(rows)
        say(str(results_path(recorded, labels)))
