"""What is exported: rows of ``results.json`` of some runs, chosen and checked."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_harness.errors import InputError, listing, suggest
from vlm_harness.logs.labels import told_apart
from vlm_harness.logs.results import read_results
from vlm_harness.logs.run import RecordedRun
from vlm_harness.metrics.display import COMPARED, HIGHER_IS_BETTER
from vlm_harness.types import Variant

ASKED = ("command", "order", "decoding", "image_mode", "labels")
"""How a model was asked a task, beside the protocol."""


@dataclass(frozen=True)
class Result:
    """One row of ``results.json``, of which some metrics are exported."""

    run: RecordedRun
    row: Mapping[str, Any]
    metrics: Sequence[str]

    @property
    def variant(self) -> Variant:
        return Variant.of(self.row)

    def __getitem__(self, field: str) -> Any:
        return self.run.name if field == "run" else self.row[field]


def load(
    folders: Sequence[Path],
    *,
    models: Sequence[str] = (),
    tasks: Sequence[str] = (),
    metrics: Sequence[str] = (),
) -> list[Result]:
    """The results of some runs together; of ``models``, ``tasks`` and ``metrics``, where named.

    Raises:
        InputError: no run, a run without results, a name that none of them has, or two results
            that nothing tells apart.
    """
    rows = [(run, row) for run in map(RecordedRun, folders) for row in read_results(run)]
    _check_names(models, {row["model"] for _, row in rows}, "model", "--model")
    _check_names(tasks, {row["task"] for _, row in rows}, "task", "--task")
    rows = [
        (run, row)
        for run, row in rows
        if (not models or row["model"] in models) and (not tasks or row["task"] in tasks)
    ]
    _check_names(metrics, {name for _, row in rows for name in row["metrics"]}, "metric")
    found = [Result(run, row, _metrics(row, metrics)) for run, row in rows]
    found = [result for result in found if result.metrics]
    if not found:
        raise InputError("nothing is left to export", where=", ".join(map(str, folders)))
    _check_apart(found)
    return found


def _check_names(
    asked: Iterable[str], known: Collection[str], kind: str, where: str = "--metric"
) -> None:
    for name in asked:
        if name not in known:
            raise InputError(
                f"no result has a {kind} {name!r}{suggest(name, known)}",
                where=where,
                hint=f"There are: {listing(known)}",
            )


def _metrics(row: Mapping[str, Any], asked: Sequence[str]) -> list[str]:
    """Those asked for that a row has; else those of the paper's tables, and the task's own."""
    metrics = row["metrics"]
    if asked:
        return [name for name in dict.fromkeys(asked) if name in metrics]
    primary = row["primary_metric"]
    names = dict.fromkeys([*COMPARED, primary])
    return [
        name
        for name in names
        if name in metrics and (metrics[name]["value"] is not None or name == primary)
    ]


def _check_apart(results: Sequence[Result]) -> None:
    seen: dict[tuple[str, Variant], Result] = {}
    for result in results:
        key = (result["run"], result.variant)
        if key in seen:
            folders = f"{seen[key].run.folder} and {result.run.folder}"
            raise InputError(
                f"two results that nothing tells apart: {result['model']} on {result['task']}, of "
                f"{folders}",
                where="RUN",
                hint="Give each run once; runs of one name in two folders, one at a time.",
            )
        seen[key] = result


def labels(results: Sequence[Result]) -> list[dict[str, str]]:
    """What tells each result from others of its model and protocol, by field.

    That is how the task was asked, where it was asked in several ways; and the run, where two runs
    asked it in the same way. What differs between tasks alone tells nothing apart.
    """
    runs: dict[Variant, set[str]] = {}
    for result in results:
        runs.setdefault(result.variant, set()).add(result["run"])
    several = {(each.model, each.protocol) for each, found in runs.items() if len(found) > 1}
    return [
        {**told, **({"run": run} if (result["model"], result["protocol"]) in several else {})}
        for result, told in zip(results, told_apart([r.row for r in results], ASKED), strict=True)
        for run in [result["run"]]
    ]


def one_model(results: Sequence[Result], format_: str) -> str:
    """The model that all results are of.

    Raises:
        InputError: they are of several.
    """
    models = {result["model"] for result in results}
    if len(models) > 1:
        raise InputError(
            f"a file of the format {format_} is about one model, and the runs have {len(models)}",
            where="--format",
            hint=f"Choose one with --model: {listing(models)}",
        )
    name: str = models.pop()
    return name


def higher_is_better(metric: str) -> bool | None:
    """Whether more of a metric is better; None where that is not known, or nothing is."""
    return True if metric in HIGHER_IS_BETTER else None
