"""``vlm-harness run``: evaluate models on tasks."""

import re
import sys
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from vlm_harness.cli.common import echo_json, say, split
from vlm_harness.errors import InputError, suggest
from vlm_harness.specs import schemas as specs
from vlm_harness.specs import validation as spec_check
from vlm_harness.specs import yamlfile
from vlm_harness.specs.arguments import key_values

EXPECTED = {
    "batch_size": "must be an integer of at least 1, or auto",
    "limit": "must be an integer of at least 1",
    "max_errors": "must be an integer of at least 0, or a percentage such as 10%",
}
LISTS = ("model", "tasks", "protocol", "command", "samples")


@click.command()
@click.option(
    "--model", "-m", multiple=True, help="Model name, checkpoint folder, or backend:checkpoint."
)
@click.option("--tasks", "-t", multiple=True, help="Tasks, groups or glob patterns.")
@click.option(
    "--protocol",
    multiple=True,
    help="similarity, generate, choice or likelihood. [default: the first one that both model and "
    "task support]",
)
@click.option(
    "--command",
    multiple=True,
    metavar="NAME|all",
    help="Prompt instruction(s) of the task, or all. [default: the task's first]",
)
@click.option(
    "--decoding",
    multiple=True,
    metavar="NAME[:k=v,...]",
    help="Decoding method, such as greedy or m3id:alpha=0.6. [default: greedy]",
)
@click.option(
    "--order",
    help="Order in which the options are shown: fixed, both, cyclic or random. "
    "[default: the task's]",
)
@click.option(
    "--images",
    help="Images shown to the model: normal, none (blind) or swapped (within pairs). "
    "[default: normal]",
)
@click.option("--labels", help="Score against corrected or original labels. [default: corrected]")
@click.option(
    "--limit",
    type=int,
    metavar="N",
    help="Evaluate at most N samples per task, in complete groups (at least one group).",
)
@click.option("--samples", multiple=True, metavar="ID,...", help="Evaluate only these samples.")
@click.option(
    "--batch-size",
    metavar="N|auto",
    help="Samples per batch; auto adapts to the memory. [default: auto]",
)
@click.option("--workers", type=int, metavar="N", help="Image-loading threads. [default: auto]")
@click.option("--device", help="cpu, cuda, cuda:1 or mps. [default: the best available]")
@click.option("--dtype", help="auto, float32, bfloat16 or float16. [default: auto]")
@click.option(
    "--seed", type=int, help="Seed for option orders and bootstrap intervals. [default: 0]"
)
@click.option(
    "--data-dir",
    metavar="DIR",
    help="Data directory. [default: $VLM_HARNESS_DATA, else a folder in the user's cache]",
)
@click.option(
    "--include-path",
    multiple=True,
    metavar="DIR",
    help="Additional folder (or file) with task, model and prompt files; repeatable.",
)
@click.option(
    "--output-dir",
    metavar="DIR",
    help="Folder in which run folders are created. [default: results]",
)
@click.option("--run-id", help="Name of the run folder. [default: models, tasks and a hash]")
@click.option(
    "--fresh", is_flag=True, default=None, help="Delete an existing run of this name first."
)
@click.option(
    "--cache/--no-cache",
    default=None,
    help="Reuse cached answers, and cache new ones. [default: no-cache]",
)
@click.option("--config", metavar="FILE", help="YAML file with any of these options.")
@click.option("--model-args", multiple=True, metavar="k=v,...", help="Arguments for the backend.")
@click.option(
    "--max-errors",
    metavar="N|P%",
    help="Stop after this many (or this share of) failed samples. [default: 10%]",
)
@click.option(
    "--timeout",
    type=float,
    metavar="S",
    help="Time limit per sample, in seconds. [default: none]",
)
@click.option(
    "--trust-remote-code", is_flag=True, default=None, help="Allow code from the checkpoint to run."
)
@click.option(
    "--check-invariance",
    is_flag=True,
    help="Rerun a subset at other batch sizes and compare the answers.",
)
@click.option(
    "--wandb-args",
    multiple=True,
    metavar="k=v,...",
    help="Log the finished run to Weights & Biases: project=...",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def run(
    as_json: bool,
    check_invariance: bool,
    config: str | None,
    wandb_args: tuple[str, ...],
    **options: Any,
) -> None:
    """Evaluate models on tasks.

    --model, --tasks, --protocol and --command accept comma-separated lists and can be repeated;
    every combination runs in one process. Rerunning the same command resumes an unfinished run; for
    a finished run it prints the results again.
    """
    settings = _settings(config, options)
    from vlm_harness.export import wandb_logger

    wandb = wandb_logger.arguments(wandb_args) if wandb_args else None
    from vlm_harness.analysis.sweeps import protocol_agreement, sweeps
    from vlm_harness.cli.cache import describe_use
    from vlm_harness.cli.console import (
        ProgressBar,
        notes_on_models,
        print_invariance,
        print_protocol_agreement,
        print_results,
        print_sweeps,
        unverified_models,
    )
    from vlm_harness.cli.groups import print_groups
    from vlm_harness.runs.evaluator import evaluate_config
    from vlm_harness.runs.interrupts import Interrupts
    from vlm_harness.runs.invariance import check_invariance as rerun

    with ProgressBar(quiet=as_json) as progress:
        interrupts = Interrupts()
        interrupts.install()
        finished = evaluate_config(
            settings, progress=progress, interrupts=interrupts, argv=sys.argv
        )
    notes = notes_on_models(finished)
    if as_json:
        echo_json(
            {
                "run": str(finished.path),
                **{k: v for k, v in finished.results.to_dict().items() if k != "schema"},
                "sweeps": sweeps(finished.path),
                "protocol_agreement": protocol_agreement(finished.path),
                "invariance": rerun(settings, finished.path) if check_invariance else [],
                **({"cache": finished.cache} if finished.cache else {}),
                **({"model_notes": notes} if notes else {}),
            }
        )
    else:
        print_results(finished.results, unverified=unverified_models(finished), model_notes=notes)
        print_groups(finished.results.groups)
        print_sweeps(sweeps(finished.path))
        print_protocol_agreement(protocol_agreement(finished.path))
        if check_invariance:
            print_invariance(rerun(settings, finished.path))
        if finished.cache:
            say(describe_use(finished.cache))
        say(f"{finished.path / 'results.json'}")
    if wandb is not None:  # last, so that a failure does not hide the results
        say(wandb_logger.log(finished.path, wandb), err=True)


def _settings(config: str | None, options: dict[str, Any]) -> specs.RunConfig:
    """Settings: options override ``--config``, which overrides defaults."""
    given = {name: value for name, value in options.items() if value not in (None, ())}
    for name in LISTS:
        if name in given:
            given[name] = split(given[name])
    for name in ("decoding", "include_path"):
        if name in given:
            given[name] = list(given[name])
    if "model_args" in given:
        from vlm_harness.backends.resolve import OVERRIDABLE

        parts = (key_values(each, "--model-args", OVERRIDABLE) for each in given["model_args"])
        given["model_args"] = {name: value for part in parts for name, value in part.items()}
    if "batch_size" in given and given["batch_size"] != "auto":
        try:
            given["batch_size"] = int(given["batch_size"])
        except ValueError:
            raise _bad_option("batch_size", given["batch_size"]) from None
    if config is not None:
        file = _underscored(yamlfile.load(Path(config)))
        spec_check.parse(specs.RunConfig, file)  # reports the line of an invalid value
        given = {**file.data, **given}
    try:
        return specs.RunConfig.model_validate(given)
    except ValidationError as error:
        detail = error.errors()[0]
        name = str(detail["loc"][0])
        raise _bad_option(name, detail["input"], detail["msg"]) from None


def _underscored(file: yamlfile.YamlFile) -> yamlfile.YamlFile:
    """Accept the spelling of the command line in YAML: ``batch-size`` for ``batch_size``."""

    def name(key: str | int) -> str | int:
        return key.replace("-", "_") if isinstance(key, str) else key

    data = {str(name(key)): value for key, value in file.data.items()}
    lines = {(name(at[0]), *at[1:]) if at else at: line for at, line in file.lines.items()}
    return yamlfile.YamlFile(file.path, data, lines)


def _bad_option(name: str, value: Any, message: str = "") -> InputError:
    expected = EXPECTED.get(name) or message.removeprefix("Value error, ").replace(
        "Input should be", "must be"
    ).replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    near = suggest(value, re.findall("'([^']+)'", expected)) if isinstance(value, str) else ""
    return InputError(f"{expected}, got {value!r}{near}", where=f"--{name.replace('_', '-')}")
