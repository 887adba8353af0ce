"""``vlm-harness run``: evaluate models on tasks."""

import sys
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from vlm_harness.backends.decoding import key_values
from vlm_harness.cli.common import echo_json, say, split
from vlm_harness.errors import InputError
from vlm_harness.specs import schemas as specs
from vlm_harness.specs import validation as spec_check
from vlm_harness.specs import yamlfile

ALLOWED = {
    "batch_size": "a whole number from 1, or auto",
    "limit": "a whole number from 1",
    "max_errors": "a whole number, or a percentage such as 10%",
}
LISTS = ("model", "tasks", "protocol", "command", "samples")


@click.command()
@click.option(
    "--model", "-m", multiple=True, help="Name, checkpoint folder, or backend:checkpoint."
)
@click.option("--tasks", "-t", multiple=True, help="Tasks, groups or globs.")
@click.option(
    "--protocol",
    multiple=True,
    help="similarity, generate, choice, likelihood [the first that fits].",
)
@click.option("--command", multiple=True, metavar="NAME|all", help="Commands of the task.")
@click.option("--decoding", multiple=True, metavar="NAME[:k=v,...]", help="[greedy]")
@click.option("--order", help="fixed, both, cyclic, random [the task's].")
@click.option("--images", help="normal, none (blind), swapped (within pairs).")
@click.option("--labels", help="corrected (default) or original.")
@click.option("--limit", type=int, metavar="N", help="At most N samples, in whole groups.")
@click.option("--samples", multiple=True, metavar="ID,...", help="Only these samples.")
@click.option("--batch-size", metavar="N|auto", help="Rows of a batch [auto].")
@click.option("--workers", type=int, metavar="N", help="Threads that read images ahead [auto].")
@click.option("--device", help="cpu, cuda, cuda:1, mps [the best there is].")
@click.option("--dtype", help="auto, float32, bfloat16, float16.")
@click.option("--seed", type=int, help="For random orders and intervals [0].")
@click.option("--data-dir", metavar="DIR", help="Where the data lie [$VLM_HARNESS_DATA].")
@click.option("--include-path", multiple=True, metavar="DIR", help="More spec files; repeatable.")
@click.option("--output-dir", metavar="DIR", help="[results]")
@click.option("--run-id", help="Name of the run folder [models, tasks and a hash].")
@click.option("--fresh", is_flag=True, default=None, help="Throw an earlier run of this name away.")
@click.option(
    "--cache/--no-cache", default=None, help="Keep answers for other runs, and use those kept."
)
@click.option("--config", metavar="FILE", help="Any of these options as YAML.")
@click.option("--model-args", multiple=True, metavar="k=v,...", help="Arguments of the backend.")
@click.option("--max-errors", metavar="N|P%", help="Stop after so many failed samples [10%].")
@click.option("--timeout", type=float, metavar="S", help="A sample that takes longer has failed.")
@click.option("--trust-remote-code", is_flag=True, default=None, help="Run code of the checkpoint.")
@click.option(
    "--check-invariance", is_flag=True, help="Do a part again at other batch sizes, and compare."
)
@click.option(
    "--wandb-args",
    multiple=True,
    metavar="k=v,...",
    help="Send the finished run to W&B: project=...",
)
@click.option("--json", "as_json", is_flag=True, help="Print results as JSON.")
def run(
    as_json: bool,
    check_invariance: bool,
    config: str | None,
    wandb_args: tuple[str, ...],
    **options: Any,
) -> None:
    """Evaluate models on tasks.

    --model, --tasks, --protocol and --command take comma lists and repeat; together they are a
    grid that is run in one process. The same command finds its run again: an unfinished one goes
    on, a finished one prints its table.
    """
    settings = _settings(config, options)
    from vlm_harness.export import wandb_logger

    wandb = wandb_logger.arguments(wandb_args) if wandb_args else None
    from vlm_harness.analysis.sweeps import protocol_agreement, sweeps
    from vlm_harness.cli.cache import describe_use
    from vlm_harness.cli.console import (
        ProgressBar,
        print_invariance,
        print_protocol_agreement,
        print_results,
        print_sweeps,
    )
    from vlm_harness.runs.evaluator import evaluate_config
    from vlm_harness.runs.interrupts import Interrupts
    from vlm_harness.runs.invariance import check_invariance as do_again

    with ProgressBar(quiet=as_json) as progress:
        interrupts = Interrupts()
        interrupts.install()
        finished = evaluate_config(
            settings, progress=progress, interrupts=interrupts, argv=sys.argv
        )
    if as_json:
        echo_json(
            {
                "run": str(finished.path),
                "results": finished.results.to_dict()["results"],
                "sweeps": sweeps(finished.path),
                "protocol_agreement": protocol_agreement(finished.path),
                "invariance": do_again(settings, finished.path) if check_invariance else [],
                **({"cache": finished.cache} if finished.cache else {}),
            }
        )
    else:
        print_results(finished.results)
        print_sweeps(sweeps(finished.path))
        print_protocol_agreement(protocol_agreement(finished.path))
        if check_invariance:
            print_invariance(do_again(settings, finished.path))
        if finished.cache:
            say(describe_use(finished.cache))
        say(f"{finished.path / 'results.json'}")
    if wandb is not None:  # at the very end: what fails there comes after the results
        say(wandb_logger.log(finished.path, wandb), err=True)


def _settings(config: str | None, options: dict[str, Any]) -> specs.RunConfig:
    """Options over ``--config`` over defaults."""
    given = {name: value for name, value in options.items() if value not in (None, ())}
    for name in LISTS:
        if name in given:
            given[name] = split(given[name])
    for name in ("decoding", "include_path"):
        if name in given:
            given[name] = list(given[name])
    if "model_args" in given:
        given["model_args"] = key_values(",".join(given["model_args"]), "--model-args")
    if "batch_size" in given and given["batch_size"] != "auto":
        try:
            given["batch_size"] = int(given["batch_size"])
        except ValueError:
            raise _bad_option("batch_size", given["batch_size"], "a whole number or auto") from None
    if config is not None:
        file = _underscored(yamlfile.load(Path(config)))
        spec_check.parse(specs.RunConfig, file)  # names the line of a bad value
        given = {**file.data, **given}
    try:
        return specs.RunConfig.model_validate(given)
    except ValidationError as error:
        detail = error.errors()[0]
        name = str(detail["loc"][0])
        raise _bad_option(name, detail["input"], detail["msg"]) from None


def _underscored(file: yamlfile.YamlFile) -> yamlfile.YamlFile:
    """Options may be written as on the command line: ``batch-size`` is ``batch_size``."""

    def name(key: str | int) -> str | int:
        return key.replace("-", "_") if isinstance(key, str) else key

    data = {str(name(key)): value for key, value in file.data.items()}
    lines = {(name(at[0]), *at[1:]) if at else at: line for at, line in file.lines.items()}
    return yamlfile.YamlFile(file.path, data, lines)


def _bad_option(name: str, value: Any, allowed: str) -> InputError:
    allowed = ALLOWED.get(name, allowed.removeprefix("Input should be "))
    return InputError(
        f"{value!r} is not allowed; allowed: {allowed}",
        where=f"--{name.replace('_', '-')}",
    )
