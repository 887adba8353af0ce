"""Time the evaluator itself: a model that answers instantly, 50,000 samples against 500.

python -m perf.overhead
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import click
import numpy as np

from perf import timing
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.metrics.stats import Units, estimate
from vlm_harness.runs.evaluator import evaluate

TASK = """\
task: sides
version: 1
dataset: {reader: jsonl, path: rows.jsonl}
sample:
  id: "{{ name }}"
  options: [left, right]
  target: "{{ side }}"
  pair: "{{ key }}"
grouping: {pair: {size: 2, distinct_targets: true}}
prompt:
  template: plain
  question: "Is the {{ name }} to the left or to the right?"
  commands: {default: "Answer left or right."}
protocols:
  generate: {extract: keyword}
metrics: [individual_accuracy, pair_accuracy]
primary_metric: pair_accuracy
"""


def answer(n: int) -> tuple[float, float]:
    """Seconds of a run over ``n`` samples, and peak memory of the process in MB."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        rows = ({"name": f"s{i}", "side": i % 2, "key": i // 2} for i in range(n))
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "sides.yaml").write_text(TASK)
        model = FakeBackend(lambda request: request.candidates[0] if request.candidates else "left")
        start = time.perf_counter()
        evaluate(
            [model],
            ["sides"],
            protocol=["generate"],
            data_dir=root,
            include_path=[str(folder / "sides.yaml")],
            output_dir=str(folder / "results"),
        )
        seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_own_process(n: int) -> tuple[float, float]:
    code = f"import perf.overhead as b; print(*b.answer({n}))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    seconds, peak = map(float, output.split())
    return seconds, peak


@click.command()
@click.option("--rounds", default=5, show_default=True)
def main(rounds: int) -> None:
    """Time per sample, memory, the interval of 100,000 samples, and start-up."""
    measured = {n: [in_own_process(n) for _ in range(rounds)] for n in (500, 50_000)}
    (few, few_peak), (many, many_peak) = (np.median(each, axis=0) for each in measured.values())
    per_sample = 1000 * (many - few) / (50_000 - 500)
    more = many_peak - few_peak
    click.echo(f"50,000 samples: {per_sample:.2f} ms per sample, {more:.0f} MB more than 500")
    correct = np.random.default_rng(0).integers(0, 2, 100_000).astype(float)
    units = Units(correct, np.ones(100_000), 100_000)
    jobs: dict[str, timing.Job] = {"interval of 100,000 samples": lambda: estimate(units)}
    for words in ("--help", "list tasks", "validate"):
        command = [sys.executable, "-m", "vlm_harness", *words.split()]
        jobs[f"vlm-harness {words}"] = partial(
            subprocess.run, command, stdout=subprocess.DEVNULL, check=True
        )
    for name, seconds in timing.alternately(jobs, rounds).items():
        click.echo(f"{name:<32} {np.median(seconds):.2f} s")


if __name__ == "__main__":
    main()
