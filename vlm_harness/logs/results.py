"""From log lines to ``results.json``, and back from there: metrics over samples, pairs and sets.

Needs no torch.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlm_harness import metrics
from vlm_harness.errors import InputError
from vlm_harness.files import from_json
from vlm_harness.logs.lines import Line
from vlm_harness.logs.run import RecordedRun
from vlm_harness.logs.schema import check_results
from vlm_harness.metrics import stats
from vlm_harness.metrics.metric import EVALUATE, METRICS, Record
from vlm_harness.specs.schemas import TaskSpec
from vlm_harness.types import Variant

NEEDED = (
    "sample_id", "order_index", "options", "correct", "pair", "set", "category", "target",
    "pair_cosine", "prediction", "status", "tied", "error",
)  # fmt: skip
"""Fields of a line that ``summarise`` reads, beside those of ``response``."""
RESPONSE = ("scores", "sum_logprobs")


def read_results(run: RecordedRun) -> list[dict[str, Any]]:
    """The rows of a run's ``results.json``.

    Raises:
        InputError: it is not there, it is damaged, or another run's.
    """
    path = run.folder / "results.json"
    hint = f"`vlm-harness rescore {run.folder}` writes it from the run's log."
    try:
        content = from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        why = "" if run.manifest.get("finished") else ": the run is not finished"
        message = f"there is no results.json{why}"
        raise InputError(message, where=run.folder, hint=hint) from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", where=path, hint=hint) from None
    try:
        check_results(content)
    except ValueError as error:
        raise InputError(f"not the results of a run: {error}", where=path, hint=hint) from None
    rows: list[dict[str, Any]] = content["results"]
    for row in rows:
        if row["task"] not in {variant.task for variant in run.variants}:
            message = f"the results of another run: this one has no task {row['task']!r}"
            raise InputError(message, where=path, hint=hint)
    return rows


def for_metrics(line: Line, task: TaskSpec) -> Line:
    """A line without what the task's metrics do not need, which is most of it."""
    # Texts may be long, and only modules of `evaluate` look at them.
    texts = ("text",) if any(name.startswith(EVALUATE) for name in task.metrics) else ()
    response = line["response"]
    return {
        **{key: line[key] for key in NEEDED},
        "response": {key: response[key] for key in (*RESPONSE, *texts) if key in response},
    }


def record(line: Line, positive: str | None = None) -> Record:
    """A line as metrics want it; ``positive`` is the task's."""
    response, options = line["response"], line["options"]
    return Record(
        sample_id=line["sample_id"],
        order_index=line["order_index"],
        n_options=len(options),
        correct=line["correct"],
        pair=line["pair"],
        set=line["set"],
        category=line["category"],
        scores=tuple(response["scores"]) if response.get("scores") else None,
        logprobs="sum_logprobs" in response,
        target=line["target"],
        pair_cosine=line["pair_cosine"],
        prediction=line["prediction"],
        options=options,
        text=response.get("text"),
        positive=options.index(positive) if positive in options else None,
    )


def summarise(
    task: TaskSpec,
    variant: Variant,
    lines: Iterable[Line],
    expected: Mapping[str, Any],
    *,
    limit: int | None,
    seed: int,
) -> dict[str, Any]:
    """One row of ``results.json``.

    ``expected`` are the counts of the manifest: groups of which no sample was answered are
    incomplete too, and only the plan knows of them.
    """
    lines = list(lines)
    records = [record(line, task.positive) for line in lines]
    status = [line["status"] for line in lines]
    rules = task.grouping
    group_counts = {}
    for kind, size in (("pair", rules.pair.size), ("set", rules.set.size)):
        total = expected[f"n_{kind}s"]
        if total:
            whole, _ = metrics.groups(records, kind, size)
            group_counts[kind] = {"n": total, "n_incomplete": total - len(whole)}
    # A task's groups are its pairs; sets alone count where it has no pairs.
    groups = group_counts.get("pair") or group_counts.get("set") or {"n": 0, "n_incomplete": 0}
    return {
        **variant._asdict(),
        "task_version": task.version,
        "limit": limit,
        "seed": seed,
        "primary_metric": task.primary_metric,
        "metrics": _estimates(records, task, seed, task.chance),
        "categories": {
            category: _estimates(members, task, seed, {})
            for category, members in _by_category(records).items()
        },
        "n_samples": len(lines),
        "n_expected": expected["n_lines"],
        "n_groups": groups["n"],
        "n_incomplete": groups["n_incomplete"],
        "groups": group_counts,
        "n_unparsed": status.count("unparsed"),
        "n_errors": status.count("error"),
        "n_tied": sum(line["tied"] for line in lines),
        "complete": limit is None
        and len({line["sample_id"] for line in lines}) == expected["n_available"]
        and len(lines) == expected["n_lines"]
        and "error" not in status,
    }


def _estimates(
    records: Sequence[Record], task: TaskSpec, seed: int, chance: Mapping[str, float]
) -> dict[str, Any]:
    found = {}
    for name in task.metrics:
        units = METRICS.get(name, task.at("metrics"))(records, task.grouping)
        found[name] = dataclasses.asdict(stats.estimate(units, chance.get(name), seed=seed))
    return found


def _by_category(records: Sequence[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for item in records:
        if item.category is not None:
            found.setdefault(item.category, []).append(item)
    return dict(sorted(found.items()))
