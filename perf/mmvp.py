"""Runs of the harness on MMVP, shared by several benchmarks."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vlm_harness.backends.hf.vlm import HfVlm
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.runs.evaluator import evaluate
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import LogLine

TASKS = Path(__file__).parent / "tasks"


def options(images: int) -> Callable[[Any], Any]:
    """Add the options --model, --data-dir, --images and --rounds to a command."""

    def add(command: Any) -> Any:
        for option in (
            click.option("--rounds", default=5, show_default=True),
            click.option(
                "--images",
                default=images,
                show_default=True,
                help="Number of MMVP images, from the first pair on.",
            ),
            click.option(
                "--data-dir",
                type=click.Path(path_type=Path),
                required=True,
                help="Data directory that contains mmvp/.",
            ),
            click.option("--model", "checkpoint", required=True, help="Checkpoint folder."),
        ):
            command = option(command)
        return command

    return add


def load(checkpoint: str, **spec: Any) -> HfVlm:
    return HfVlm(
        ModelSpec(model="ours", backend="hf_vlm", checkpoint=checkpoint, **spec), LoadOptions()
    )


def image_path(line: LogLine, data_dir: Path) -> Path:
    """Path of the image of a log line."""
    assert line.images
    return data_dir / line.images[0].path


def answers(vlm: HfVlm, task: str, data_dir: Path, images: int, **grid: Any) -> list[LogLine]:
    """Run a task of ``tasks/`` and return the log."""
    with tempfile.TemporaryDirectory() as folder:
        run = evaluate(
            [vlm],
            [task],
            include_path=[str(TASKS)],
            data_dir=str(data_dir),
            limit=images,
            output_dir=folder,
            **grid,
        )
        return list(run.lines())
