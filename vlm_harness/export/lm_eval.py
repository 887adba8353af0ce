"""The results file of EleutherAI's lm-evaluation-harness (0.4), which its tools read.

A task there has metrics by ``metric,filter``; in the place of the filter stands the protocol, and
what else tells results of a task apart. Its standard error is half of the 95% interval over 1.96,
which a bootstrap over groups makes close to it. Where a value lies at an end of its interval
(as Wilson's of 0 or 100%) no number says how far it may be off in both directions, and it is
``N/A``, as it is there for what has none.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import NormalDist
from typing import Any

from vlm_harness.export.rows import Result, higher_is_better, labels, one_model
from vlm_harness.files import to_json

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
    tasks: dict[str, list[tuple[Result, str]]] = {}
    for result, filter_ in zip(results, _filters(results), strict=True):
        tasks.setdefault(result["task"], []).append((result, filter_))
    first = {task: found[0][0] for task, found in tasks.items()}
    return {
        "results": {task: _metrics(task, found) for task, found in tasks.items()},
        "group_subtasks": {task: [] for task in tasks},
        "configs": {task: _config(result) for task, result in first.items()},
        "versions": {task: result["task_version"] for task, result in first.items()},
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {
            task: {name: higher_is_better(name) for result, _ in found for name in result.metrics}
            for task, found in tasks.items()
        },
        "n-samples": {
            task: {"original": _available(found[0][0]), "effective": _effective(found)}
            for task, found in tasks.items()
        },
        **_about(model, results),
    }


def _filters(results: Sequence[Result]) -> list[str]:
    """The protocol, and what else varies: a comma would end the name of a filter."""
    return [
        ":".join([result["protocol"], *(f"{k}={v}" for k, v in label.items())]).replace(",", ";")
        for result, label in zip(results, labels(results), strict=True)
    ]


def _metrics(task: str, found: Sequence[tuple[Result, str]]) -> dict[str, Any]:
    entries: dict[str, Any] = {"name": task, "alias": task, "sample_len": _effective(found)}
    for result, filter_ in found:
        for name in result.metrics:
            metric = result["metrics"][name]
            # A null would stop its table; where it has no number, it writes this.
            entries[f"{name},{filter_}"] = NONE if metric["value"] is None else metric["value"]
            entries[f"{name}_stderr,{filter_}"] = _stderr(metric)
    return entries


def _stderr(metric: Mapping[str, Any]) -> float | str:
    value, low, high = (metric[key] for key in ("value", "ci_low", "ci_high"))
    if value is None or low is None or high is None or not low < value < high:
        return NONE
    return float(high - low) / (2 * Z)


def _available(result: Result) -> int:
    """Samples of the task, of which a limit may have left some out."""
    cells = result.run.manifest["expected"]
    found: int = max(cell["n_available"] for cell in cells if cell["task"] == result["task"])
    return found


def _effective(found: Sequence[tuple[Result, str]]) -> int:
    """Samples that were asked; where protocols differ, the fewest. An order is no other sample."""
    return min(_asked(result) for result, _ in found)


def _asked(result: Result) -> int:
    if result["order"] in ("both", "cyclic"):
        # Where a line was logged for each order, the log knows how many samples they are of.
        logged = {line["sample_id"] for line in result.run.lines([result.variant])}
        return len(logged) or result["n_samples"]
    return int(result["n_samples"])


def _config(result: Result) -> dict[str, Any]:
    spec = result.run.spec(result["task"])
    source = spec.dataset.source
    texts = result["protocol"] == "generate"
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
    """The model and the runs; of several runs what is said once is said of the first."""
    runs = list({result["run"]: result.run for result in results}.values())
    manifest = runs[0].manifest
    about = manifest["models"].get(model, {})
    config, environment = manifest["config"], manifest.get("environment") or {}
    seed = manifest["identity"]["seed"]
    return {
        "config": {
            "model": about.get("backend") or model,
            "model_args": {
                "pretrained": about.get("checkpoint"),
                **manifest["identity"]["models"].get(model, {}).get("args", {}),
            },
            "model_num_parameters": about.get("parameters"),
            "model_dtype": about.get("dtype"),
            "model_revision": about.get("revision"),
            "batch_size": config.get("batch_size"),
            "batch_sizes": [],
            "device": about.get("device"),
            "use_cache": None,
            "limit": manifest["identity"]["limit"],
            "bootstrap_iters": None,
            "gen_kwargs": None,
            "random_seed": seed,
            "numpy_seed": seed,
            "torch_seed": seed,
            "fewshot_seed": None,
        },
        "git_hash": environment.get("git_commit"),
        "date": _timestamp(manifest.get("started")),
        "transformers_version": environment.get("packages", {}).get("transformers"),
        "model_source": "vlm-harness",
        "model_name": model,
        "model_name_sanitized": re.sub(r"[\"<>:/|\\?*\[\]]+", "__", model),
        "vlm_harness": {
            "version": manifest.get("vlm_harness"),
            "runs": [
                {"run_id": run.name, "identity_sha256": run.manifest["identity_sha256"]}
                for run in runs
            ],
        },
    }


def _timestamp(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None
