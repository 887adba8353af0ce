"""The parts of a report: scores, breakdowns, calibration, agreement.

Plain data, for templates and for ``charts.js``.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from vlm_harness.analysis import agreement
from vlm_harness.analysis.calibration import calibration
from vlm_harness.errors import InputError
from vlm_harness.logs.labels import common_prefix
from vlm_harness.logs.results import record
from vlm_harness.logs.run import run_names
from vlm_harness.metrics import display
from vlm_harness.metrics.accuracy import individual_accuracy
from vlm_harness.metrics.stats import estimate
from vlm_harness.report.gallery import Answers
from vlm_harness.report.page import Data, Options
from vlm_harness.types import GRID, Estimate, ResultRow


class Row(NamedTuple):
    """A row of results as a page shows it."""

    result: ResultRow
    name: str
    """Name of the task on the page."""
    label: str
    """Label of the answerer, the same everywhere on the page."""
    run: str
    link: str
    """URL fragment that shows its samples."""
    verified: bool
    """Whether the project has run the model's checkpoint name and revision."""

    @property
    def fields(self) -> dict[str, Any]:
        """Values of the columns that identify a row, by heading."""
        return {**self.result.grid, "run": self.run}


FEW = 12
"""Most options for a breakdown by correct answer; captions have more."""
MOST = 60
"""Most categories shown."""


def charts(
    rows: Sequence[Row],
    breakdowns: Sequence[Data],
    calibrations: Sequence[Data],
    agreements: Sequence[agreement.Report],
) -> dict[str, Data]:
    """The data of each chart, by the name of its place on the page."""
    scores = _dots(rows)
    return {
        **({"scores": {"kind": "dots", "name": "Scores", "data": scores}} if scores else {}),
        **{
            f"breakdown-{index}": {
                "kind": "dots",
                "name": f"{part['task']}: {part['title']}",
                "data": part["chart"],
            }
            for index, part in enumerate(breakdowns)
            if part["chart"]
        },
        "calibration": {"kind": "reliability", "data": _bins(calibrations)},
        **{
            f"agreement-{index}": {"kind": "agreement", "data": _cosines(each)}
            for index, each in enumerate(agreements)
        },
    }


def _dot(facet: str, label: str, name: str, metric: Estimate) -> Data:
    assert metric.value is not None
    ends = display.interval(name, metric.ci_low, metric.ci_high, "–")
    return {
        "facet": _brief(facet),
        "label": _brief(label),
        "value": metric.value,
        "low": metric.ci_low,
        "high": metric.ci_high,
        "chance": metric.chance,
        "text": display.number(name, metric.value) + (f" ({ends})" if ends else ""),
    }


def _brief(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


def _dots(rows: Sequence[Row]) -> list[Data]:
    """The primary metrics that are shares, labelled without the common prefix of task names."""
    prefix = common_prefix(row.name for row in rows)
    return [
        _dot(f"{row.name.removeprefix(prefix)}: {display.short(name)}", row.label, name, metric)
        for row in rows
        for name, metric in [(row.result.primary_metric, row.result.primary)]
        if metric.value is not None and display.unit(name) == "share"
    ]


# --- breakdowns -----------------------------------------------------------------------------------


def breakdowns(answers: Sequence[Answers], rows: Sequence[Row]) -> Iterator[Data]:
    """Break down each task by category and by correct answer."""
    for task in dict.fromkeys(each.task for each in answers):
        own = [
            (each, row.result) for each, row in zip(answers, rows, strict=True) if each.task == task
        ]
        # A pair with two categories counts in neither; fall back to samples.
        for metric in (own[0][1].primary_metric, "individual_accuracy"):
            found = [
                {"value": category, "label": each.label, "n": estimate.n, "metric": estimate}
                for each, result in own
                for category, metrics in result.categories.items()
                for estimate in [metrics.get(metric)]
                if estimate is not None and estimate.value is not None
            ]
            if found:
                yield _breakdown(task, "category", metric, found)
                break
        found = [{**by, "label": each.label} for each, _ in own for by in _by_answer(each)]
        if found:
            yield _breakdown(task, "correct answer", "individual_accuracy", found)


def _breakdown(task: str, by: str, metric: str, rows: Sequence[Data]) -> Data:
    n = Counter[str]()
    for row in rows:
        n[row["value"]] = max(n[row["value"]], row["n"])
    most = {value for value, _ in n.most_common(MOST)}
    rows = [row for row in rows if row["value"] in most]
    unit = " in percent" if display.unit(metric) == "share" else ""
    caption = f"{display.title(metric)}{unit}, with 95% intervals; dashed: chance."
    caption = caption[0].upper() + caption[1:]
    if len(n) > MOST:
        caption += f" Shown: the {MOST} of {len(n):,} values with the most samples."
    return {
        "task": task,
        "title": f"by {by}",
        "by": by,
        "metric": metric,
        "rows": rows,
        "has_share": "share" in rows[0],
        "caption": caption,
        "chart": [
            _dot(str(row["value"]), row["label"], metric, row["metric"])
            for row in rows
            if row["metric"].value is not None and display.unit(metric) == "share"
        ],
    }


def _by_answer(answers: Answers) -> list[Data]:
    """Accuracy by correct option, and the share of answers that chose each option."""
    options = {tuple(sorted(line.options)) for line in answers.lines}
    if len(options) != 1 or len(min(options)) > FEW:
        return []
    rules = answers.run.spec(answers.cell.task).grouping
    seed = answers.run.manifest.identity.seed
    chosen = Counter(
        line.options[line.prediction] for line in answers.lines if line.prediction is not None
    )
    found = []
    for option in min(options):
        records = [record(line) for line in answers.lines if line.options[line.target] == option]
        metric = estimate(individual_accuracy(records, rules), seed=seed)
        share = chosen[option] / len(answers.lines)
        found.append({"value": option, "n": len(records), "metric": metric, "share": share})
    return found


def calibrations(answers: Sequence[Answers]) -> Iterator[Data]:
    for each in answers:
        found = calibration(each.lines, seed=each.run.manifest.identity.seed)
        if found is not None:
            yield {"task": each.task, "label": each.label, **dataclasses.asdict(found)}


def _bins(calibrations: Sequence[Data]) -> list[Data]:
    return [
        {
            "facet": _brief(row["task"]),
            "label": _brief(row["label"]),
            "confidence": each["confidence"],
            "accuracy": each["accuracy"],
            "low": each["ci_low"],
            "high": each["ci_high"],
            "n": each["n"],
        }
        for row in calibrations
        for each in row["bins"]
        if each["n"]
    ]


def agreements(
    answers: Sequence[Answers], options: Options
) -> tuple[list[agreement.Report], list[str]]:
    """Agreement reports of tasks with paired samples, and a note for each that failed."""
    paired = {cell.task for each in answers for cell in each.run.paired}
    tasks = dict.fromkeys(each.cell.task for each in answers if each.cell.task in paired)
    found, notes = [], []
    for task in tasks:
        own = [each for each in answers if each.cell.task == task]
        logged = any(line.pair_cosine is not None for each in own for line in each.lines)
        if options.measure is agreement.from_log and not logged:
            continue  # no dual encoder answered this task, which is no error
        runs = list({each.run.path: each.run for each in own}.values())
        try:
            reports = agreement.analyse(
                [run.path for run in runs], options.measure, [task], options.threshold
            )
        except InputError as error:
            notes.append(f"No agreement analysis for {task}: {error.message}.")
            continue
        names = run_names(runs)
        label = {(names[each.run.path], *each.cell.grid.values()): each.label for each in own}
        for report in reports:
            for row in report["rows"]:  # the same label everywhere on the page
                key = (row["run"], *(row[name] for name in GRID))
                row["label"] = label.get(key, row["label"])
        found += [report for report in reports if report["n_pairs"]]
    return found, notes


def _cosines(report: agreement.Report) -> Data:
    bins = [
        {
            "label": _brief(row["label"]),
            "text": display.percent(found["value"]),
            "cosine": bounds["median"],
            "n": found["n"],
            "value": found["value"],
            "low": found["ci_low"],
            "high": found["ci_high"],
        }
        for row in report["rows"]
        for bounds, each in zip(report["bins"], row["bins"], strict=True)
        for found in [each["pair_accuracy"]]
        if found["value"] is not None
    ]
    chances = {
        each["pair_accuracy"]["chance"] for row in report["rows"] for each in row["bins"]
    } - {None}
    return {
        "threshold": report["threshold"],
        "cosines": [float(f"{each['cosine']:.5f}") for each in report["pairs"]],
        "bins": bins,
        "chance": chances.pop() if len(chances) == 1 else None,
    }
