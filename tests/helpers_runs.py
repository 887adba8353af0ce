"""Runs of fake models on the toy benchmark, and what they wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlm_harness.backends.fake import FakeBackend
from vlm_harness.evaluator import Run, evaluate
from vlm_harness.types import Request


def oracle(request: Request) -> Any:
    assert request.sample is not None
    target = request.sample.target
    if request.kind == "generate":
        return f"It is {request.sample.options[target]}."
    return [float(index == target) for index in range(len(request.candidates))]


def go(bench: Path, handler: Callable[[Request], Any] = oracle, **options: Any) -> Run:
    backend = handler if isinstance(handler, FakeBackend) else FakeBackend(handler, "toy")
    settings = {
        "data_dir": str(bench / "data"),
        "include_path": [str(bench / "specs")],
        "output_dir": str(bench / "results"),
        **options,
    }
    return evaluate([backend], ["sides"], **settings)


def lines(run: Run) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted((run.path / "samples").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def value(run: Run, metric: str = "individual_accuracy", row: int = 0) -> Any:
    return run.results[row]["metrics"][metric]["value"]
