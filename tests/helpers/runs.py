"""Runs of fake models on the toy benchmark, and checks of their output."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from vlm_harness.backends.fake import FakeBackend
from vlm_harness.runs.evaluator import FinishedRun as Run
from vlm_harness.runs.evaluator import evaluate
from vlm_harness.types import LogLine, Request, Response


def oracle(request: Request) -> Any:
    assert request.sample is not None
    target = request.sample.target
    if request.kind == "generate":
        return f"It is {request.sample.options[target]}."
    return [float(index == target) for index in range(len(request.candidates))]


def laconic(request: Request) -> Any:
    """Answers correctly, with the bare option."""
    assert request.sample is not None
    if request.kind == "generate":
        return request.sample.options[request.sample.target]
    return oracle(request)


def first(request: Request) -> Any:
    assert request.sample is not None
    if request.kind == "generate":
        return request.sample.options[0]
    return [-float(index) for index in range(len(request.candidates))]


def go(bench: Path, handler: Callable[[Request], Any] = oracle, **options: Any) -> Run:
    backend = handler if isinstance(handler, FakeBackend) else FakeBackend(handler, "toy")
    backend.revision = "1"  # so that finished runs are recognised
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


def key_of(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """The key that identifies a JSON log line within its run."""
    return LogLine.model_validate(line).key


def log_line(**fields: Any) -> LogLine:
    """A log line with default values for all other fields."""
    options = fields.get("options", ["left", "right"])
    defaults = {
        "model": "m", "task": "t", "protocol": "generate", "command": "default",
        "order_mode": "fixed", "decoding": "greedy", "image_mode": "normal",
        "labels": "corrected", "sample_id": "s", "pair": None, "set": None, "category": None,
        "options": options, "shown": options, "order": list(range(len(options))),
        "order_index": 0, "response": {}, "pair_cosine": None, "target": 0, "target_original": 0,
        "prediction": None, "tied": False, "correct": False, "status": "ok", "error": None,
    }  # fmt: skip
    return LogLine.model_validate({**defaults, **fields})


def value(run: Run, metric: str = "individual_accuracy", row: int = 0) -> Any:
    return run.results[row].metrics[metric].value


def difference(one: Any, other: Any, where: str = "") -> str | None:
    """The first place where two values differ by more than rounding.

    Model outputs differ in the last digits between batches, processes and processors.
    """
    if isinstance(one, float) and isinstance(other, float):
        close = math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-4)
        return None if close else f"{where}: {one} is not {other}"
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return next(filter(None, (difference(one[k], other[k], f"{where}/{k}") for k in one)), None)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next(filter(None, (difference(*pair, f"{where}/{n}") for n, pair in pairs)), None)
    return None if one == other else f"{where}: {str(one)[:200]} is not {str(other)[:200]}"


def check_same(found: Sequence[Response | None], expected: Sequence[Response | None]) -> None:
    """Assert that two backends gave the same texts, scores and token counts, up to rounding."""
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert other is not None
        assert one.error is other.error is None
        assert one.text == other.text
        assert (one.scores is None) == (other.scores is None)
        for a, b in zip(one.scores or (), other.scores or (), strict=True):
            assert a.n_tokens == b.n_tokens
            assert a.score == pytest.approx(b.score, rel=1e-4, abs=1e-4)
            assert a.sum_logprob == pytest.approx(b.sum_logprob, rel=1e-5, abs=1e-4)


def same_however_computed(
    go: Callable[..., Run], models: Sequence[str], tasks: Sequence[str], **options: Any
) -> int:
    """Evaluate with and without sharing, and with different batches, threads and task orders.

    Asserts that scores agree within 1e-4, and that predictions agree if the best two scores differ
    by more. Returns the number of lines. ``go(models, tasks, folder=..., **options)`` runs.
    """
    protocols = ["choice", "likelihood", "generate"]
    variations: list[dict[str, Any]] = [
        {"model_args": {"share_prefixes": False}, "batch_size": 1, "workers": 0},
        {"model_args": {"share_prefixes": False}, "batch_size": 5},
        {"batch_size": 1},
        {"batch_size": 3, "workers": 0},
        {"batch_size": 16, "workers": 4},
        {"batch_size": 3, "tasks": tasks[::-1]},
    ]
    runs = []
    for number, variation in enumerate(variations):
        order = variation.pop("tasks", tasks)
        # Dual encoders do not take share_prefixes.
        encoders = [] if "model_args" in variation else [name for name in models if "clip" in name]
        run = go(
            [*encoders, *(name for name in models if "clip" not in name)], order,
            folder=str(number), protocol=["similarity"] * bool(encoders) + protocols,
            decoding=["greedy", "m3id:alpha=1"], command=["all"], **options, **variation,
        )  # fmt: skip
        runs.append({key_of(line): line for line in lines(run)})
    reference = runs[2]
    for other in runs:
        for key, line in other.items():
            scores = line["response"].get("scores")
            assert line["response"].get("text") == reference[key]["response"].get("text")
            if scores is not None:
                assert scores == pytest.approx(reference[key]["response"]["scores"], abs=1e-4)
                best = sorted(scores)[-2:]
                if best[1] - best[0] > 1e-4:
                    assert line["prediction"] == reference[key]["prediction"]
    return len(reference)
