"""Whether a run's answers depend on how it was batched, as they must not.

A part of a run is done again at other batch sizes, and compared with what is in the log. Where sums
are added up in another order, scores move by rounding; an answer flips where that is more than the
gap between the best two options. In float32 hardly any should; in half precision some do, and a
difference between two models that is no larger than that share says nothing.
"""

import math
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_harness.backends import Backend
from vlm_harness.evaluator import Progress, load, run
from vlm_harness.models import resolve
from vlm_harness.plan import plan
from vlm_harness.recorded import RecordedRun
from vlm_harness.registry import Registry
from vlm_harness.runlog import Line, key_of
from vlm_harness.specs import RunConfig

SIZES = (1, 3, 16)
COUNT = 64


def check_invariance(
    config: RunConfig,
    folder: Path,
    sizes: Sequence[int] = SIZES,
    count: int = COUNT,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Do about ``count`` samples of a finished run again at each batch size.

    Returns:
        A row for each batch size, model and protocol: ``dtype``, number of lines ``n``, ``flips``
        (lines with another prediction), ``texts`` (lines with another text),
        ``max_score_difference``.

    Raises:
        InputError: as the run itself.
    """
    recorded = RecordedRun(folder)
    progress = progress or Progress()
    before = {key_of(line): line for line in _lines(recorded)}
    samples = _some({line["sample_id"]: line["pair"] for line in before.values()}, count)
    registry = Registry.standard(config.include_path)
    rows = []
    for name in dict.fromkeys(config.model):
        spec = resolve(name, registry, config.model_args)
        dtype = recorded.manifest.get("models", {}).get(spec.model, {}).get("dtype")
        loaded: dict[str, Backend] = {}  # once for all batch sizes
        for size in sizes:
            with tempfile.TemporaryDirectory() as place:
                changed = {"samples": samples, "limit": None, "batch_size": size, "run_id": "again"}
                settings = config.model_copy(
                    update={**changed, "output_dir": place, "fresh": False}
                )
                planned = plan(settings, registry, [spec])
                if not loaded:
                    loaded[spec.model] = load(spec, planned, progress)
                again = run(planned, progress, sys.argv, loaded)
                pairs: dict[str, list[tuple[Line, Line]]] = {}
                for line in _lines(RecordedRun(again.path)):
                    pairs.setdefault(line["protocol"], []).append((before[key_of(line)], line))
            rows += [
                {
                    "batch_size": size,
                    "model": spec.model,
                    "protocol": protocol,
                    "dtype": dtype,
                    **compare(found),
                }
                for protocol, found in pairs.items()
            ]
    return rows


def compare(pairs: Iterable[tuple[Line, Line]]) -> dict[str, Any]:
    """What differs between lines of one key."""
    pairs = list(pairs)
    differences = [
        abs(a - b)
        for one, other in pairs
        for a, b in zip(
            one["response"].get("scores") or (), other["response"].get("scores") or (), strict=True
        )
    ]
    return {
        "n": len(pairs),
        "flips": sum(one["prediction"] != other["prediction"] for one, other in pairs),
        "texts": sum(
            one["response"].get("text") != other["response"].get("text") for one, other in pairs
        ),
        "max_score_difference": max(differences, default=None),
    }


def _some(pairs: Mapping[str, str | None], count: int) -> list[str]:
    """Ids spread over the run, whole pairs where there are any."""
    groups: dict[str, list[str]] = {}
    for sample, pair in pairs.items():
        groups.setdefault(sample if pair is None else f"pair {pair}", []).append(sample)
    members = list(groups.values())
    per_group = max(1, round(len(pairs) / len(members)))
    step = max(1, math.ceil(len(members) * per_group / count))
    return [sample for group in members[::step] for sample in group]


def _lines(recorded: RecordedRun) -> Iterable[Line]:
    return recorded.lines(sorted(recorded.variants))
