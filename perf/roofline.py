"""Compare the rate of scoring MMVP's options with the machine's rate of large matrix products.

Torch counts operations as it dispatches them. The rate of large products is measured between the
rounds.

    python -m perf.roofline --model CHECKPOINT --data-dir DATA
"""

import statistics
import time
from functools import partial
from pathlib import Path

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from perf import mmvp

SIDE = 1536


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a product of two square matrices."""
    one, other = (torch.randn(SIDE, SIDE, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        (one @ other).sum().item()
        best = min(best, time.perf_counter() - start)
    return 2 * SIDE**3 / best


@click.command()
@mmvp.options(images=8)
def main(checkpoint: str, data_dir: Path, images: int, rounds: int) -> None:
    """Measure choice and likelihood scoring with both orders and three commands."""
    vlm = mmvp.load(checkpoint)
    grid = {"protocol": ["choice", "likelihood"], "order": "both", "command": ["all"]}
    evaluated = partial(mmvp.answers, vlm, "mmvp_three_commands", data_dir, images, **grid)
    evaluated()  # not counted: the first run measures what the model supports
    with FlopCounterMode(display=False) as counter:
        evaluated()
    operations = counter.get_total_flops()
    shares = []
    for _ in range(rounds):
        rate = matrix_rate(vlm.loaded.model.device, vlm.loaded.model.dtype)
        start = time.perf_counter()
        evaluated()
        taken = time.perf_counter() - start
        shares.append(operations / taken / rate)
        click.echo(
            f"{operations / 1e12:.2f} TFLOP in {taken:.2f} s: {operations / taken / 1e9:.0f} "
            f"GFLOP/s; large matrix products: {rate / 1e9:.0f} GFLOP/s"
        )
    click.echo(f"median share of the rate of large products: {statistics.median(shares):.2f}")


if __name__ == "__main__":
    main()
