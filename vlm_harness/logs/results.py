"""Computes the rows of ``results.json`` from log lines: metrics over samples, pairs and sets.

Needs no torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from vlm_harness import metrics
from vlm_harness.metrics import METRICS, Record, stats
from vlm_harness.protocols.extractors import extract
from vlm_harness.specs.extraction import steps
from vlm_harness.specs.schemas import TaskSpec
from vlm_harness.types import Cell, Estimate, ExpectedCell, GroupCount, LogLine, ResultRow, Status


def record(
    line: LogLine, positive: str | None = None, texts: bool = True, task: TaskSpec | None = None
) -> Record:
    """Convert a log line to the input of metrics.

    Args:
        positive: the task's positive option.
        texts: whether to keep the generated text, which may be long; only some metrics read it.
        task: if given, the text is also read under the task's other readings.
    """
    response, options = line.response, line.options
    return Record(
        sample_id=line.sample_id,
        order_index=line.order_index,
        n_options=len(options),
        correct=line.correct,
        pair=line.pair,
        set=line.set,
        category=line.category,
        scores=tuple(response.scores) if response.scores else None,
        logprobs=response.sum_logprobs is not None,
        target=line.target,
        pair_cosine=line.pair_cosine,
        prediction=line.prediction,
        options=options,
        text=response.text if texts else None,
        positive=options.index(positive) if positive in options else None,
        status=line.status,
        tied=line.tied,
        readings=_readings(line, task) if task is not None else {},
        text_cut=response.finish_reason == "length",
        over_limit=bool(response.over_limit),
    )


def _readings(line: LogLine, task: TaskSpec) -> dict[str, int | None]:
    """The predictions under the other readings that a task declares for generated text."""
    use = task.protocols.generate
    if line.protocol != "generate" or use is None or line.response.text is None:
        return {}
    found = {}
    for name, chain in use.readings.items():
        index = extract(steps(chain), line.response.text, line.shown)[1].index
        found[name] = None if index is None else line.order[index]
    return found


def reads_text(task: TaskSpec) -> bool:
    """Whether any metric of a task reads the generated text."""
    return any(METRICS.declared(name).reads_text for name in task.metrics)


def summarise(
    task: TaskSpec,
    cell: Cell,
    records: Iterable[Record],
    expected: ExpectedCell,
    *,
    limit: int | None,
    seed: int,
) -> ResultRow:
    """One row of ``results.json``.

    Args:
        expected: the counts from the manifest. A group without any answered sample is incomplete
            too, but does not appear in ``records``.
    """
    records = list(records)
    status = [each.status for each in records]
    rules = task.grouping
    group_counts = {}
    for kind, size, total in (
        ("pair", rules.pair.size, expected.n_pairs),
        ("set", rules.set.size, expected.n_sets),
    ):
        if total:
            complete, _ = metrics.groups(records, kind, size)
            group_counts[kind] = GroupCount(n=total, n_incomplete=total - len(complete))
    # The groups of a task are its pairs, or its sets if it has no pairs.
    groups = group_counts.get("pair") or group_counts.get("set") or GroupCount(n=0, n_incomplete=0)
    return ResultRow(
        **cell.grid,
        task_version=task.version,
        limit=limit,
        seed=seed,
        primary_metric=task.primary_metric,
        metrics=_estimates(records, task, seed, task.chance),
        categories={
            category: _estimates(members, task, seed, {})
            for category, members in _by_category(records).items()
        },
        n_samples=len(records),
        n_expected=expected.n_lines,
        n_groups=groups.n,
        n_incomplete=groups.n_incomplete,
        groups=group_counts,
        readings={
            name: _estimates(_reread(records, name), task, seed, task.chance)
            for name in (records[0].readings if records else ())
        },
        n_unparsed=status.count("unparsed"),
        n_errors=status.count("error"),
        n_tied=sum(each.tied for each in records),
        n_texts_cut=sum(each.text_cut for each in records),
        n_over_limit=sum(each.over_limit for each in records),
        complete=limit is None
        and len({each.sample_id for each in records}) == expected.n_available
        and len(records) == expected.n_lines
        and "error" not in status,
    )


def _reread(records: Sequence[Record], reading: str) -> list[Record]:
    """Records with the predictions of another reading."""
    reread = []
    for each in records:
        prediction = each.readings.get(reading)
        status: Status = each.status
        if status != "error":
            status = "unparsed" if prediction is None else "ok"
        correct = prediction == each.target
        reread.append(replace(each, prediction=prediction, correct=correct, status=status))
    return reread


def _estimates(
    records: Sequence[Record], task: TaskSpec, seed: int, chance: Mapping[str, float]
) -> dict[str, Estimate]:
    return {
        name: stats.estimate(
            METRICS.get(name, task.at("metrics"))(records, task.grouping),
            chance.get(name),
            seed=seed,
        )
        for name in task.metrics
    }


def _by_category(records: Sequence[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for item in records:
        if item.category is not None:
            found.setdefault(item.category, []).append(item)
    return dict(sorted(found.items()))
