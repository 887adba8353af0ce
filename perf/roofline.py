"""How close the options of MMVP's questions come to what the machine's matrix products allow.

Operations are counted by torch as they are dispatched; the rate is that of large products, measured
between the rounds of the job itself.

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
    """Operations a second of a product of two square matrices."""
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
    """Choice and likelihood, both orders, three commands."""
    vlm = mmvp.load(checkpoint)
    grid = {"protocol": ["choice", "likelihood"], "order": "both", "command": ["all"]}
    evaluated = partial(mmvp.answers, vlm, "mmvp_three_commands", data_dir, images, **grid)
    evaluated()  # not counted: the model is tried first
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
            f"{operations / 1e12:.2f} T operations in {taken:.2f} s: "
            f"{operations / taken / 1e9:.0f} G a second, of {rate / 1e9:.0f} in large products"
        )
    click.echo(f"median share of the machine's rate: {statistics.median(shares):.2f}")


if __name__ == "__main__":
    main()
