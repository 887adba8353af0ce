"""Sensitivity of scores to the command and the option order, from the logs of a run.

For every model, task and protocol with several commands or orders: mean, best and worst of the
primary metric over them, the share of answers that flip, and whether the first position is
preferred. Papers that report the best command (as appendix A.1 does) report ``best_command``, which
is selected on the test samples; the printed tables say so.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_harness.logs.results import record
from vlm_harness.logs.run import Run
from vlm_harness.metrics import METRICS, Record
from vlm_harness.specs.schemas import TaskSpec
from vlm_harness.types import Cell, LogLine

KEY = ("model", "task", "protocol", "decoding", "image_mode")
"""Fields that identify a row; commands and orders vary within a row."""


def sweeps(folder: Path) -> list[dict[str, Any]]:
    """One row per model, task and protocol with several commands or orders.

    Raises:
        InputError: not a run folder, or a log that cannot be read.
    """
    run = Run(folder)
    by_key: dict[tuple[str, ...], list[Cell]] = {}
    for cell in run.cells:
        by_key.setdefault(tuple(getattr(cell, name) for name in KEY), []).append(cell)
    rows = []
    for cells in by_key.values():
        if len(cells) == 1 and cells[0].order_mode not in ("both", "cyclic"):
            continue
        lines = list(run.lines(cells))
        if lines:
            rows.append(_row(cells[0], run.spec(cells[0].task), lines))
    return rows


def protocol_agreement(folder: Path) -> list[dict[str, Any]]:
    """For every model and task with several protocols, how often two protocols agree.

    Uses the first command and the first order of each protocol. ``matrix[p][q]`` is the share of
    samples with the same answer under p and q, among those answered under both; the diagonal is the
    share of samples that p answers (not tied, unparsed or failed). A model that knows the answer
    gives it under every protocol.

    Raises:
        InputError: not a run folder, or a log that cannot be read.
    """
    first: dict[tuple[str, str, str, str], dict[str, Cell]] = {}
    run = Run(folder)
    for cell in run.cells:
        key = (cell.model, cell.task, cell.image_mode, cell.labels)
        first.setdefault(key, {}).setdefault(cell.protocol, cell)
    rows = []
    for (model, task, image_mode, _), cells in first.items():
        if len(cells) < 2:
            continue
        answers = {protocol: _answers(run, cell) for protocol, cell in cells.items()}
        rows.append(
            {
                "model": model,
                "task": task,
                "image_mode": image_mode,
                "protocols": [*answers],
                "matrix": [[_agreement(p, q) for q in answers.values()] for p in answers.values()],
            }
        )
    return rows


def _answers(run: Run, cell: Cell) -> dict[str, Any]:
    return {line.sample_id: line.prediction for line in run.lines([cell]) if line.order_index == 0}


def _agreement(p: Mapping[str, Any], q: Mapping[str, Any]) -> float | None:
    if p is q:
        return sum(answer is not None for answer in p.values()) / len(p) if p else None
    both = [name for name in p if p[name] is not None and q.get(name) is not None]
    return sum(p[name] == q[name] for name in both) / len(both) if both else None


def _row(of: Cell, spec: TaskSpec, lines: Sequence[LogLine]) -> dict[str, Any]:
    """``of`` is any cell of the lines, which differ only in command and order."""
    by_setting: dict[tuple[str, int], list[Record]] = {}
    for line in lines:
        setting = line.command, line.order_index
        by_setting.setdefault(setting, []).append(record(line, spec.positive))
    metric = METRICS.get(spec.primary_metric)
    values = {
        setting: value
        for setting, records in by_setting.items()
        if (value := metric(records, spec.grouping).value) is not None
    }
    best, worst = (max, min) if metric.direction != "lower" else (min, max)
    by_command: dict[str, list[float]] = {}
    for (command, _), value in values.items():
        by_command.setdefault(command, []).append(value)
    means = {command: sum(found) / len(found) for command, found in by_command.items()}
    best_command = best(means, key=lambda command: means[command], default=None)
    position, expected = _first_position(lines)
    return {
        **{name: getattr(of, name) for name in KEY},
        "metric": spec.primary_metric,
        "n_cells": len(by_setting),
        "mean": sum(values.values()) / len(values) if values else None,
        "best": _extreme(values, best),
        "worst": _extreme(values, worst),
        "best_command": None
        if best_command is None
        else {"command": best_command, "value": means[best_command]},
        "flip_rate": _flip_rate(lines),
        "first_position": position,
        "first_position_expected": expected,
    }


def _extreme(values: Mapping[tuple[str, int], float], pick: Any) -> dict[str, Any] | None:
    if not values:
        return None
    command, order = pick(values, key=lambda setting: values[setting])
    return {"command": command, "order_index": order, "value": values[command, order]}


def _flip_rate(lines: Iterable[LogLine]) -> float | None:
    """Share of samples whose answer differs between settings; no answer counts as an answer.

    Answers are compared as options, not positions: a model that follows the content never flips.
    """
    answers: dict[str, list[Any]] = {}
    for line in lines:
        answers.setdefault(line.sample_id, []).append(line.prediction)
    several = [found for found in answers.values() if len(found) > 1]
    return sum(len(set(found)) > 1 for found in several) / len(several) if several else None


def _first_position(lines: Iterable[LogLine]) -> tuple[float | None, float | None]:
    """Share of answers that pick the option shown first, and the share expected without bias.

    Counts only samples for which every option was shown first equally often, as with ``both`` and
    ``cyclic``; otherwise the first option may simply be the correct one.
    """
    shown: dict[tuple[str, str], list[LogLine]] = {}
    for line in lines:
        shown.setdefault((line.sample_id, line.command), []).append(line)
    first = answered = 0
    expected = 0.0
    for group in shown.values():
        if len({line.order[0] for line in group}) != len(group[0].options):
            continue
        for line in group:
            if line.prediction is not None:
                answered += 1
                first += line.prediction == line.order[0]
                expected += 1 / len(line.options)
    return (first / answered, expected / answered) if answered else (None, None)
