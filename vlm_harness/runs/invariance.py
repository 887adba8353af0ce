"""Whether a run's answers depend on how it was batched, as they must not.

A part of a run is done again at other batch sizes, and compared with what is in the log. Where sums
are added up in another order, scores move by rounding; an answer flips where that is more than the
gap between the best two options. In float32 hardly any should; in half precision some do, and a
difference between two models that is no larger than that share says nothing.
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
    """Do about ``count`` samples of each task of a finished run again at each batch size.

    Returns:
        A row for each batch size, model and protocol: ``dtype``, number of lines ``n``, ``flips``
        (lines with another prediction), ``texts`` (lines with another text),
        ``max_score_difference``.

    Raises:
        InputError: as the run itself.
    """
    recorded = Run(folder)
    progress = progress or Progress()
    before = {line.key: line for line in recorded.lines()}
    samples = {
        task: _some([line for line in before.values() if line.task == task], count)
        for task in dict.fromkeys(cell.task for cell in recorded.cells)
    }
    registry = Registry.standard(config.include_path)
    rows = []
    for name in dict.fromkeys(config.model):
        spec = resolve(name, registry, config.model_args)
        model = recorded.manifest.models.get(spec.model)
        # A task may have been asked under other protocols than the next.
        asked: dict[str, list[str]] = {}
        for cell in recorded.cells:
            if cell.model == spec.model and samples[cell.task]:
                asked.setdefault(cell.task, []).append(cell.protocol)
        loaded: dict[str, Backend] = {}  # once for all batch sizes
        for size in sizes:
            pairs: dict[str, list[tuple[LogLine, LogLine]]] = {}
            for task, protocols in asked.items():
                with tempfile.TemporaryDirectory() as place:
                    settings = config.model_copy(
                        update={
                            "tasks": [task],
                            "protocol": list(dict.fromkeys(protocols)),
                            "samples": samples[task],
                            "limit": None,
                            "batch_size": size,
                            "output_dir": place,
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
    """What differs between lines of one key."""
    pairs = list(pairs)
    differences = [
        abs(a - b)
        for one, other in pairs
        for a, b in zip(
            # A line that failed on one side has no scores.
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


def _some(lines: Sequence[LogLine], count: int) -> list[str]:
    """Ids spread over a task's samples, in whole sets or pairs where there are any."""
    groups: dict[str, dict[str, None]] = {}
    for line in lines:
        groups.setdefault(line.cluster, {})[line.sample_id] = None
    members = list(groups.values())
    n_samples = sum(map(len, members))
    step = max(1, math.ceil(n_samples / count))
    return [sample for group in members[::step] for sample in group]
