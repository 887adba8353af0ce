"""The results file of EleutherAI's lm-evaluation-harness (0.4).

Its metrics have keys ``metric,filter``. The filter is the protocol here, with whatever else
distinguishes results of a task. The standard error is half the width of the 95% interval divided by
1.96, an approximation for a bootstrap over groups. If a value is at an end of its interval (such as
Wilson's for 0% or 100%), no single number describes the error in both directions, and the standard
error is ``N/A``.

The scores of groups of tasks are under ``groups`` and, as lm-eval has it, under ``results`` too.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from statistics import NormalDist
from typing import Any

from vlm_harness.export.rows import Result, higher_is_better, labels, one_model
from vlm_harness.files import to_json
from vlm_harness.protocols import PROTOCOLS
from vlm_harness.types import Estimate, RecordedModel

Z = NormalDist().inv_cdf(0.975)
NONE = "N/A"


def dump(results: Sequence[Result]) -> str:
    """
    Raises:
        InputError: the results are of several models.
    """
    return to_json(document(results), indent=2, allow_nan=False) + "\n"


def document(results: Sequence[Result]) -> dict[str, Any]:
    model = one_model(results, "lm-eval")
    every: dict[str, list[tuple[Result, str]]] = {}
    for result, filter_ in zip(results, _filters(results), strict=True):
        every.setdefault(result.row.task, []).append((result, filter_))
    tasks = {name: found for name, found in every.items() if not found[0][0].members}
    first = {task: found[0][0] for task, found in tasks.items()}
    scores = {name: _metrics(name, found) for name, found in every.items()}
    groups = {name: found for name, found in scores.items() if name not in tasks}
    return {
        "results": scores,
        **({"groups": groups} if groups else {}),
        "group_subtasks": {name: list(found[0][0].members) for name, found in every.items()},
        "configs": {task: _config(result) for task, result in first.items()},
        "versions": {name: found[0][0].version for name, found in every.items()},
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {
            name: {
                metric: higher_is_better(result.measure(metric))
                for result, _ in found
                for metric in result.metrics
            }
            for name, found in every.items()
        },
        "n-samples": {
            task: {"original": _available(found[0][0]), "effective": _effective(found)}
            for task, found in tasks.items()
        },
        **_about(model, results),
    }


def _filters(results: Sequence[Result]) -> list[str]:
    """The protocol and whatever else varies, without commas, which would end the filter's name."""
    return [
        ":".join([result.row.protocol, *(f"{k}={v}" for k, v in label.items())]).replace(",", ";")
        for result, label in zip(results, labels(results), strict=True)
    ]


def _metrics(task: str, found: Sequence[tuple[Result, str]]) -> dict[str, Any]:
    entries: dict[str, Any] = {"name": task, "alias": task, "sample_len": _effective(found)}
    for result, filter_ in found:
        for name in result.metrics:
            metric = result.row.metrics[name]
            # lm-eval writes N/A too; its table fails on null.
            entries[f"{name},{filter_}"] = NONE if metric.value is None else metric.value
            entries[f"{name}_stderr,{filter_}"] = _stderr(metric)
    return entries


def _stderr(metric: Estimate) -> float | str:
    value, low, high = metric.value, metric.ci_low, metric.ci_high
    if value is None or low is None or high is None or not low < value < high:
        return NONE
    return float(high - low) / (2 * Z)


def _available(result: Result) -> int:
    """All samples of the task, including those that a limit left out."""
    cells = result.run.manifest.expected
    return max(each.n_available for each in cells if each.task == result.row.task)


def _effective(found: Sequence[tuple[Result, str]]) -> int:
    """Evaluated samples; the fewest if protocols differ. Option orders do not count twice."""
    return min(_n_evaluated(result) for result, _ in found)


def _n_evaluated(result: Result) -> int:
    cells = result.cells
    if any(cell.order_mode in ("both", "cyclic") for cell in cells):
        # There is one line per order: count the samples in the log.
        logged = {(line.task, line.sample_id) for line in result.run.lines(cells)}
        return len(logged) or result.row.n_samples
    return result.row.n_samples


def _config(result: Result) -> dict[str, Any]:
    spec = result.run.spec(result.row.task)
    source = spec.dataset.source
    texts = PROTOCOLS.get(result.row.protocol).kind == "generate"
    return {
        "task": spec.task,
        "tag": list(spec.groups),
        "dataset_path": spec.dataset.name or (source and source.hub) or spec.task,
        "dataset_name": spec.dataset.config,
        "test_split": spec.dataset.split,
        "description": spec.description,
        "num_fewshot": 0,
        "output_type": "generate_until" if texts else "multiple_choice",
        "metric_list": [
            {"metric": name, "higher_is_better": higher_is_better(name)} for name in result.metrics
        ],
        "metadata": {"version": spec.version},
    }


def _about(model: str, results: Sequence[Result]) -> dict[str, Any]:
    """The model and the runs. Keys that exist only once describe the first run."""
    runs = list({result.run.name: result.run for result in results}.values())
    manifest = runs[0].manifest
    about = manifest.models.get(model, RecordedModel())
    identity, environment = manifest.identity, manifest.environment
    seed = identity.seed
    return {
        "config": {
            "model": about.backend or model,
            "model_args": {
                "pretrained": about.checkpoint,
                **identity.models.get(model, {}).get("args", {}),
            },
            "model_num_parameters": about.parameters,
            "model_dtype": about.dtype,
            "model_revision": about.revision,
            "batch_size": manifest.config.batch_size,
            "batch_sizes": [],
            "device": about.device,
            "use_cache": None,
            "limit": identity.limit,
            "bootstrap_iters": None,
            "gen_kwargs": None,
            "random_seed": seed,
            "numpy_seed": seed,
            "torch_seed": seed,
            "fewshot_seed": None,
        },
        "git_hash": environment.git_commit,
        "date": _timestamp(manifest.started),
        "transformers_version": environment.packages.get("transformers"),
        "model_source": "vlm-harness",
        "model_name": model,
        "model_name_sanitized": re.sub(r"[\"<>:/|\\?*\[\]]+", "__", model),
        "vlm_harness": {
            "version": manifest.vlm_harness,
            "runs": [
                {"run_id": run.name, "identity_sha256": run.manifest.identity_sha256}
                for run in runs
            ],
        },
    }


def _timestamp(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None
