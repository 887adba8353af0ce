"""Time M3ID against greedy generation of the same prompts: the cost of decoding without the image.

python -m perf.m3id --model CHECKPOINT --data-dir DATA
"""

from pathlib import Path

import click

from perf import mmvp, timing


@click.command()
@mmvp.options(images=24)
def main(checkpoint: str, data_dir: Path, images: int, rounds: int) -> None:
    """Time a model on MMVP with both decodings, 16 tokens each."""
    vlm = mmvp.load(checkpoint)

    def run(decoding: str) -> None:
        mmvp.answers(vlm, "mmvp_generation", data_dir, images, decoding=[decoding])

    run("m3id")  # not timed: first calls are slower
    jobs = {name: lambda name=name: run(name) for name in ("greedy", "m3id")}
    timing.report(timing.alternately(jobs, rounds), ours="greedy")


if __name__ == "__main__":
    main()
