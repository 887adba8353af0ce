"""Checks that a run's answers do not depend on the batch size.

A subset of a run is evaluated again at other batch sizes, and compared with the log. Another batch
size changes the order of summation, and so the rounding of scores; an answer flips if that change
exceeds the gap between the best two options. In float32 almost no answers flip. In half precision
some do, and a difference between two models that is not larger than this share is meaningless.
"""

import math
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vlm_harness.backends.interface import Backend
from vlm_harness.backends.resolve import resolve
from vlm_harness.logs.run import Run
from vlm_harness.runs.evaluator import load, run
from vlm_harness.runs.plan import plan
from vlm_harness.runs.state import Progress
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import RunConfig
from vlm_harness.types import LogLine

SIZES = (1, 3, 16)
COUNT = 64


def check_invariance(
    config: RunConfig,
    folder: Path,
    sizes: Sequence[int] = SIZES,
    count: int = COUNT,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Evaluate about ``count`` samples per task of a finished run again at each batch size.

    Returns:
        One row per batch size, model and protocol: ``dtype``, number of lines ``n``, ``flips``
        (lines with a different prediction), ``texts`` (lines with a different text),
        ``max_score_difference``.

    Raises:
        InputError: as ``evaluate``.
    """
    recorded = Run(folder)
    progress = progress or Progress()
    before = {line.key: line for line in recorded.lines()}
    samples = {
        task: _sample_ids([line for line in before.values() if line.task == task], count)
        for task in dict.fromkeys(cell.task for cell in recorded.cells)
    }
    registry = Registry.standard(config.include_path)
    rows = []
    for name in dict.fromkeys(config.model):
        spec = resolve(name, registry, config.model_args)
        model = recorded.manifest.models.get(spec.model)
        # Tasks can have different protocols.
        protocols_by_task: dict[str, list[str]] = {}
        for cell in recorded.cells:
            if cell.model == spec.model and samples[cell.task]:
                protocols_by_task.setdefault(cell.task, []).append(cell.protocol)
        loaded: dict[str, Backend] = {}  # loaded once for all batch sizes
        for size in sizes:
            pairs: dict[str, list[tuple[LogLine, LogLine]]] = {}
            for task, protocols in protocols_by_task.items():
                with tempfile.TemporaryDirectory() as folder_name:
                    settings = config.model_copy(
                        update={
                            "tasks": [task],
                            "protocol": list(dict.fromkeys(protocols)),
                            "samples": samples[task],
                            "limit": None,
                            "batch_size": size,
                            "output_dir": folder_name,
                            "run_id": "again",
                            "fresh": False,
                        }
                    )
                    planned = plan(settings, registry, [spec])
                    if not loaded:
                        loaded[spec.model] = load(spec, planned, progress)
                    again = run(planned, progress, sys.argv, loaded)
                    for line in again.lines():
                        pairs.setdefault(line.protocol, []).append((before[line.key], line))
            rows += [
                {
                    "batch_size": size,
                    "model": spec.model,
                    "protocol": protocol,
                    "dtype": model and model.dtype,
                    **compare(found),
                }
                for protocol, found in sorted(pairs.items())
            ]
    return rows


def compare(pairs: Iterable[tuple[LogLine, LogLine]]) -> dict[str, Any]:
    """Differences between pairs of lines with the same key."""
    pairs = list(pairs)
    differences = [
        abs(a - b)
        for one, other in pairs
        for a, b in zip(
            # A failed line has no scores.
            one.response.scores or (),
            other.response.scores or (),
            strict=False,
        )
        if a is not None and b is not None
    ]
    return {
        "n": len(pairs),
        "flips": sum(one.prediction != other.prediction for one, other in pairs),
        "texts": sum(one.response.text != other.response.text for one, other in pairs),
        "max_score_difference": max(differences, default=None),
    }


def _sample_ids(lines: Sequence[LogLine], count: int) -> list[str]:
    """About ``count`` sample ids, evenly spaced over the task, in complete pairs or sets."""
    groups: dict[str, dict[str, None]] = {}
    for line in lines:
        groups.setdefault(line.cluster, {})[line.sample_id] = None
    members = list(groups.values())
    n_samples = sum(map(len, members))
    step = max(1, math.ceil(n_samples / count))
    return [sample for group in members[::step] for sample in group]
