"""M3ID against greedy generation of the same prompts: what its branch without the image costs.

python -m benchmarks.m3id --model CHECKPOINT --data-dir DATA
"""

import tempfile
from pathlib import Path

import click

from benchmarks import timing
from vlm_harness.backends import LoadOptions
from vlm_harness.backends.hf_vlm import HfVlm
from vlm_harness.evaluator import evaluate
from vlm_harness.specs import ModelSpec


@click.command()
@click.option("--model", "checkpoint", required=True, help="folder of a checkpoint")
@click.option("--data-dir", type=click.Path(path_type=Path), required=True, help="with mmvp/")
@click.option("--images", default=24, show_default=True, help="of MMVP, from the first pair on")
@click.option("--rounds", default=5, show_default=True)
def main(checkpoint: str, data_dir: Path, images: int, rounds: int) -> None:
    """Let a model answer MMVP's questions under both decodings, 16 tokens each."""
    vlm = HfVlm(ModelSpec(model="vlm", backend="hf_vlm", checkpoint=checkpoint), LoadOptions())

    def answered(decoding: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            evaluate(
                [vlm],
                ["mmvp_generation"],
                include_path=[str(timing.TASKS)],
                protocol=["generate"],
                decoding=[decoding],
                data_dir=str(data_dir),
                limit=images,
                output_dir=folder,
            )

    answered("m3id")  # not timed: the first calls are slower
    jobs = {name: lambda name=name: answered(name) for name in ("greedy", "m3id")}
    timing.report(timing.in_turns(jobs, rounds), ours="greedy")


if __name__ == "__main__":
    main()
