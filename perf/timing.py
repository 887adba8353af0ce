"""Time alternatives alternately in one process, and compare them round by round."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import click

OURS = "vlm-harness, log and metrics included"
Job = Callable[[], Any]


def alternately(jobs: Mapping[str, Job], rounds: int) -> dict[str, list[float]]:
    """Seconds of each job in each round. The order rotates, so that no job is always first."""
    names = list(jobs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            jobs[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def report(seconds: Mapping[str, list[float]], ours: str) -> None:
    """Print median times, and each alternative's time relative to ``ours`` (median over rounds)."""
    for name, taken in seconds.items():
        line = f"{name:<48} {statistics.median(taken):9.3f} s"
        if name != ours:
            ratios = [other / own for other, own in zip(taken, seconds[ours], strict=True)]
            line += (
                f"   {statistics.median(ratios):6.2f}x the time of {ours} "
                f"(rounds: {min(ratios):.2f} to {max(ratios):.2f})"
            )
        click.echo(line)
