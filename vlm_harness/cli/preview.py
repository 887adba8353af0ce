"""``vlm-harness preview``: prompts, image properties and (with a model) tokens of a sample."""

from typing import Any

import click

from vlm_harness.cli.common import (
    RenamedOption,
    data_dir_option,
    echo_json,
    include_path_option,
    json_option,
    registry,
    say,
)
from vlm_harness.errors import InputError, SampleError
from vlm_harness.images import load
from vlm_harness.paths import data_dir as data_directory
from vlm_harness.protocols.protocol import PROTOCOLS
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.tasks.orders import ORDER_MODES, orders
from vlm_harness.tasks.prompts import prompt_builder
from vlm_harness.tasks.task import Task, load_task
from vlm_harness.types import ImageRef, Request, Sample


@click.command()
@click.option(
    "--task", "-t", cls=RenamedOption, old="--tasks", required=True, help="Name of the task."
)
@click.option("--model", "-m", help="Also show the prompt format and tokens of this model.")
@click.option(
    "--index", type=int, default=0, show_default=True, help="Index of the sample, from 0."
)
@click.option(
    "--order", type=click.Choice(ORDER_MODES), help="Order of the options. [default: the task's]"
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed for --order random.")
@include_path_option
@data_dir_option
@json_option
def preview(
    task: str,
    model: str | None,
    index: int,
    order: str | None,
    seed: int,
    include_path: tuple[str, ...],
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Show the prompts of one sample, for every protocol and command.

    --model loads the checkpoint's processor (not its weights), and shows each prompt as it is sent
    to the model, with its number of tokens.
    """
    found = registry(include_path)
    spec = found.task(task)
    loaded = load_task(spec, found, data_directory(data_dir))
    if not 0 <= index < len(loaded.samples):
        raise InputError(
            f"expected 0 to {len(loaded.samples) - 1} ({task} has {len(loaded.samples)} samples), "
            f"got {index}",
            where="--index",
        )
    sample = loaded.samples[index]
    report = {
        "task": task,
        "sample_id": sample.id,
        "pair": sample.pair,
        "set": sample.set,
        "category": sample.category,
        "options": list(sample.options),
        "captions": list(sample.captions) if sample.captions else None,
        "target": sample.target,
        "target_original": sample.target_original,
        "images": [_facts(ref) for ref in sample.images],
        "prompts": list(_prompts(found, loaded, sample, order or spec.order, seed)),
    }
    if model is not None:
        from vlm_harness.backends.resolve import resolve

        _add_tokens(report, resolve(model, found), sample)
    if as_json:
        echo_json(report)
    else:
        _print(report)


def _facts(ref: ImageRef) -> dict[str, Any]:
    try:
        image = load(ref)
    except SampleError as error:
        return {"path": ref.path, "error": str(error)}
    width, height = image.pixels.size
    return {"path": ref.path, "width": width, "height": height, "sha256": image.sha256}


def _prompts(found: Registry, task: Task, sample: Sample, order: Any, seed: int) -> Any:
    for name in task.spec.protocols.declared:
        protocol = PROTOCOLS.get(name)
        if not protocol.uses_prompt:
            continue
        use = task.spec.protocols.use(name)
        builder = prompt_builder(task.spec, name, use, found)
        for command in builder.commands:
            for shown in orders(order, sample, seed):
                prompt = builder.prompt(sample, shown, command)
                request = protocol.request(sample, prompt, use)
                yield {
                    "protocol": name,
                    "command": command,
                    "order": list(shown),
                    "prompt": prompt.text,
                    "candidates": list(request.candidates) or None,
                }


def _add_tokens(report: dict[str, Any], model: ModelSpec, sample: Sample) -> None:
    """Add what is sent to the model: the text in its prompt format, and the number of tokens."""
    from vlm_harness.backends.interface import LoadOptions
    from vlm_harness.backends.resolve import family

    family(model).check(model)
    formatter = family(model).prompt_format(model, LoadOptions())
    if formatter is None:
        report["note"] = f"the backend {model.backend} has no prompt format"
        return
    images = [load(ref).pixels for ref in sample.images]
    for entry in report["prompts"]:
        text = formatter.text(Request("score", sample.images, prompt=entry["prompt"]))
        ids = formatter.inputs([text], [images])["input_ids"][0].tolist()
        entry["as_sent"] = text
        entry["n_tokens"] = len(ids)
        if entry["candidates"]:
            tokens = formatter.answer_tokens(text, entry["candidates"], ids)
            entry["answer_tokens"] = {
                answer: formatter.tokenizer.convert_ids_to_tokens(token_ids)
                for answer, token_ids in zip(entry["candidates"], tokens, strict=True)
            }


def _print(report: dict[str, Any]) -> None:
    for key in ("task", "sample_id", "pair", "set", "category", "options", "captions"):
        if report[key] is not None:
            say(f"{key:<10} {report[key]}")
    target = report["target"]
    say(f"{'target':<10} {target} = {report['options'][target]!r}")
    if report["target_original"] != target:
        say(f"{'':<10} (published label: {report['target_original']})")
    for image in report["images"]:
        facts = image.get("error") or (
            f"{image['width']}x{image['height']} sha256 {image['sha256'][:16]}"
        )
        say(f"{'image':<10} {image['path']}  {facts}")
    for entry in report["prompts"]:
        tokens = f", {entry['n_tokens']} tokens" if "n_tokens" in entry else ""
        say(
            f"\n--- {entry['protocol']}, command {entry['command']}, order {entry['order']}{tokens}"
        )
        say(entry.get("as_sent", entry["prompt"]))
        if entry["candidates"]:
            say(f"scored: {entry['candidates']}")
        for answer, pieces in entry.get("answer_tokens", {}).items():
            say(f"  {answer!r} -> {pieces} + EOS")
    if "note" in report:
        say(f"\n{report['note']}")
