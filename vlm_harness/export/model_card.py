"""Results as the ``model-index`` of a Hugging Face model card: the YAML at the top of its README.

Uses the classes of huggingface_hub. They merge results by task and dataset and keep the other
fields of the first result only. So everything that may differ is stored with each metric.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vlm_harness.export.rows import Result, labels, one_model
from vlm_harness.logs.labels import score_title
from vlm_harness.metrics.display import title
from vlm_harness.protocols import PROTOCOLS
from vlm_harness.specs.schemas import DatasetSpec
from vlm_harness.types import SETTINGS

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TASKS = {
    "zero-shot-image-classification": "Zero-Shot Image Classification",
    "visual-question-answering": "Visual Question Answering",
}
"""The hub's names for the tasks of protocols."""

TYPES = {"individual_accuracy": "accuracy"}
"""Metrics with a different name on the hub; f1, precision and recall have the same name."""

DIGITS = 4


def dump(results: Sequence[Result]) -> str:
    """
    Raises:
        InputError: the results are of several models.
    """
    from huggingface_hub import ModelCardData

    model = one_model(results, "model-card")
    found = eval_results(results)
    return f"---\n{ModelCardData(model_name=model, eval_results=found).to_yaml()}\n---\n"


def eval_results(results: Sequence[Result]) -> "list[EvalResult]":
    """All metrics with a value; the hub cannot represent others."""
    return [
        _eval_result(result, label, name)
        for result, label in zip(results, labels(results), strict=True)
        for name in result.metrics
        if result.row.metrics[name].value is not None
    ]


def _eval_result(result: Result, label: dict[str, str], name: str) -> "EvalResult":
    from huggingface_hub import EvalResult

    similar = PROTOCOLS.get(result.row.protocol).kind == "similarity"
    task = "zero-shot-image-classification" if similar else "visual-question-answering"
    # A group is no data set of its own, even if all of its tasks are on the hub.
    dataset = None if result.members else result.run.spec(result.row.task).dataset
    hub = dataset and (dataset.name or (dataset.source and dataset.source.hub))
    configuration = ", ".join(
        [result.row.protocol, *(f"{key} {value}" for key, value in label.items())]
    )
    return EvalResult(
        task_type=task,
        task_name=TASKS[task],
        dataset_type=hub or result.row.task,
        dataset_name=hub or result.row.task,
        dataset_config=dataset.config if dataset and hub else None,
        dataset_split=dataset.split if dataset and hub else None,
        dataset_revision=_revision(result, dataset) if dataset and hub else None,
        metric_type=TYPES.get(name, name),
        metric_name=f"{result.row.task}: {_title(result, name)} ({configuration})",
        metric_value=round(result.row.metrics[name].value or 0.0, DIGITS),
        metric_args=_args(result, name),
    )


def _title(result: Result, name: str) -> str:
    return score_title(name) if result.members else title(name)


def _revision(result: Result, dataset: DatasetSpec) -> str | None:
    """The revision that was read; if unknown, the one that the task pins."""
    read = result.run.manifest.data_revision.get(result.row.task)
    return read or dataset.revision or (dataset.source.revision if dataset.source else None)


def _args(result: Result, name: str) -> dict[str, Any]:
    """The conditions of the measurement, without which values cannot be compared."""
    row, metric = result.row, result.row.metrics[name]
    found = {
        **(
            {"group": row.task, "group_version": result.version}
            if result.members
            else {"task": row.task, "task_version": result.version}
        ),
        "protocol": row.protocol,
        **{name: row.grid[name] for name in SETTINGS},
        "ci_low": _rounded(metric.ci_low),
        "ci_high": _rounded(metric.ci_high),
        "n": metric.n,
        "chance": _rounded(metric.chance),
        "complete": row.complete,
    }
    return {key: value for key, value in found.items() if value is not None}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
