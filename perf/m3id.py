"""M3ID against greedy generation of the same prompts: what its branch without the image costs.

python -m perf.m3id --model CHECKPOINT --data-dir DATA
"""

from pathlib import Path

import click

from perf import mmvp, timing


@click.command()
@mmvp.options(images=24)
def main(checkpoint: str, data_dir: Path, images: int, rounds: int) -> None:
    """Let a model answer MMVP's questions under both decodings, 16 tokens each."""
    vlm = mmvp.load(checkpoint)

    def answered(decoding: str) -> None:
        mmvp.answers(vlm, "mmvp_generation", data_dir, images, decoding=[decoding])

    answered("m3id")  # not timed: the first calls are slower
    jobs = {name: lambda name=name: answered(name) for name in ("greedy", "m3id")}
    timing.report(timing.in_turns(jobs, rounds), ours="greedy")


if __name__ == "__main__":
    main()
