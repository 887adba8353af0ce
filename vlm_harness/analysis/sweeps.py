"""What wording and order of the options do to a score: the grid of commands x orders of a run.

Of every model, task and protocol that a run asked in more than one way: the primary metric's mean,
best and worst over the grid, how many answers flip, and whether one position is preferred. From the
logs alone. A paper that reports the best command (appendix A.1 of ours does) reports
``best_command``, which is chosen on the test samples themselves: the tables say so.
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
"""What is asked in several ways."""


def sweeps(folder: Path) -> list[dict[str, Any]]:
    """One row for everything that the run asked in more than one way.

    Raises:
        InputError: no run folder, or a log that cannot be read.
    """
    run = Run(folder)
    asked: dict[tuple[str, ...], list[Cell]] = {}
    for cell in run.cells:
        asked.setdefault(tuple(getattr(cell, name) for name in KEY), []).append(cell)
    rows = []
    for cells in asked.values():
        if len(cells) == 1 and cells[0].order_mode not in ("both", "cyclic"):
            continue
        lines = list(run.lines(cells))
        if lines:
            rows.append(_row(cells[0], run.spec(cells[0].task), lines))
    return rows


def protocol_agreement(folder: Path) -> list[dict[str, Any]]:
    """For every model and task asked under several protocols, how often two give the same answer.

    Of each protocol the first command and the first order. ``matrix[p][q]`` is the share of samples
    that p and q answer alike, over those answered under both; on the diagonal, the share that p
    answers at all (not tied, unparsed or failed). A model that knows the answer gives it however it
    is asked.

    Raises:
        InputError: no run folder, or a log that cannot be read.
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
                "matrix": [[_alike(p, q) for q in answers.values()] for p in answers.values()],
            }
        )
    return rows


def _answers(run: Run, cell: Cell) -> dict[str, Any]:
    return {line.sample_id: line.prediction for line in run.lines([cell]) if line.order_index == 0}


def _alike(p: Mapping[str, Any], q: Mapping[str, Any]) -> float | None:
    if p is q:
        return sum(answer is not None for answer in p.values()) / len(p) if p else None
    both = [name for name in p if p[name] is not None and q.get(name) is not None]
    return sum(p[name] == q[name] for name in both) / len(both) if both else None


def _row(of: Cell, spec: TaskSpec, lines: Sequence[LogLine]) -> dict[str, Any]:
    """``of``: one of the cells of the lines, which differ in command and order alone."""
    ways: dict[tuple[str, int], list[Record]] = {}
    for line in lines:
        way = line.command, line.order_index
        ways.setdefault(way, []).append(record(line, spec.positive))
    metric = METRICS.get(spec.primary_metric)
    values = {
        way: value
        for way, records in ways.items()
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
        "n_cells": len(ways),
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
    command, order = pick(values, key=lambda way: values[way])
    return {"command": command, "order_index": order, "value": values[command, order]}


def _flip_rate(lines: Iterable[LogLine]) -> float | None:
    """Share of samples that are not answered alike in all cells; no answer is an answer of its own.

    An answer is an option, not a position: a model that follows the words never flips.
    """
    answers: dict[str, list[Any]] = {}
    for line in lines:
        answers.setdefault(line.sample_id, []).append(line.prediction)
    several = [found for found in answers.values() if len(found) > 1]
    return sum(len(set(found)) > 1 for found in several) / len(several) if several else None


def _first_position(lines: Iterable[LogLine]) -> tuple[float | None, float | None]:
    """Share of answers that name the option shown first, and what it would be without a bias.

    Only of samples whose every option was shown first equally often, as ``both`` and ``cyclic`` do:
    elsewhere the right answer may simply have stood there.
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
