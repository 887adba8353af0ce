"""What a report tells of scores: drawn, by category and right answer, calibration, agreement.

Plain data, for templates and for ``charts.js``.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlm_harness.analysis import agreement
from vlm_harness.analysis.calibration import calibration
from vlm_harness.errors import InputError
from vlm_harness.logs.labels import common_prefix, run_names
from vlm_harness.logs.results import record
from vlm_harness.metrics.accuracy import individual_accuracy
from vlm_harness.metrics.display import SHORT, interval, is_cosine, number, words
from vlm_harness.metrics.stats import estimate
from vlm_harness.report.gallery import Cell
from vlm_harness.report.page import Data, Options
from vlm_harness.types import Variant

FEW = 12
"""Right answers that are told apart; more, as captions have, are no kinds of questions."""
MOST = 60
"""Categories that are shown."""


def charts(
    rows: Sequence[Data],
    breakdowns: Sequence[Data],
    calibrations: Sequence[Data],
    agreements: Sequence[agreement.Report],
) -> dict[str, Data]:
    """What ``charts.js`` draws, by the name of its place on the page."""
    return {
        "scores": {"kind": "dots", "name": "Scores", "data": _dots(rows)},
        **{
            f"breakdown-{index}": {
                "kind": "dots",
                "name": f"{part['task']}: {part['title']}",
                "data": part["chart"],
            }
            for index, part in enumerate(breakdowns)
        },
        "calibration": {"kind": "reliability", "data": _bins(calibrations)},
        **{
            f"agreement-{index}": {"kind": "agreement", "data": _cosines(each)}
            for index, each in enumerate(agreements)
        },
    }


def _dot(facet: str, label: str, name: str, metric: Mapping[str, Any]) -> Data:
    ends = interval(name, metric["ci_low"], metric["ci_high"], "–")
    return {
        "facet": _brief(facet),
        "label": _brief(label),
        "value": metric["value"],
        "low": metric["ci_low"],
        "high": metric["ci_high"],
        "chance": metric["chance"],
        "text": number(name, metric["value"]) + (f" ({ends})" if ends else ""),
    }


def _brief(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


def _dots(rows: Sequence[Data]) -> list[Data]:
    """The score to quote of each task; its name without what those of all tasks begin with."""
    prefix = common_prefix(row["name"] for row in rows)
    return [
        _dot(
            f"{row['name'].removeprefix(prefix)}: {SHORT.get(name, name)}",
            row["label"],
            name,
            row["metrics"][name],
        )
        for row in rows
        for name in [row["primary_metric"]]
        if row["metrics"][name]["value"] is not None and not is_cosine(name)
    ]


# --- parts of it ----------------------------------------------------------------------------------


def breakdowns(cells: Sequence[Cell], rows: Sequence[Data]) -> Iterator[Data]:
    """Of each task by category, and by what the right answer was."""
    for task in dict.fromkeys(cell.task for cell in cells):
        own = [(cell, row) for cell, row in zip(cells, rows, strict=True) if cell.task == task]
        # Pairs of two categories are in neither: samples are, then.
        for metric in (own[0][1]["primary_metric"], "individual_accuracy"):
            found = [
                {"value": category, "label": cell.label, "n": each["n"], "metric": each}
                for cell, row in own
                for category, metrics in row["categories"].items()
                for each in [metrics.get(metric)]
                if each is not None and each["value"] is not None
            ]
            if found:
                yield _breakdown(task, "category", metric, found)
                break
        found = [{**each, "label": cell.label} for cell, _ in own for each in _by_answer(cell)]
        if found:
            yield _breakdown(task, "right answer", "individual_accuracy", found)


def _breakdown(task: str, by: str, metric: str, rows: Sequence[Data]) -> Data:
    n = Counter[str]()
    for row in rows:
        n[row["value"]] = max(n[row["value"]], row["n"])
    most = {value for value, _ in n.most_common(MOST)}
    rows = [row for row in rows if row["value"] in most]
    caption = f"{words(metric).capitalize()} in percent, with 95% intervals; dashed: chance."
    if len(n) > MOST:
        caption += f" Of {len(n):,} the {MOST} with most samples."
    return {
        "task": task,
        "title": f"by {by}",
        "by": by,
        "metric": metric,
        "rows": rows,
        "said": "said" in rows[0],
        "caption": caption,
        "chart": [
            _dot(str(row["value"]), row["label"], metric, row["metric"])
            for row in rows
            if row["metric"]["value"] is not None
        ],
    }


def _by_answer(cell: Cell) -> list[Data]:
    """Accuracy where each option was right, and how often the model said it, right or not."""
    options = {tuple(sorted(line["options"])) for line in cell.lines}
    if len(options) != 1 or len(min(options)) > FEW:
        return []
    rules = cell.run.spec(cell.variant.task).grouping
    seed = cell.run.manifest["identity"]["seed"]
    said = Counter(
        line["options"][line["prediction"]] for line in cell.lines if line["prediction"] is not None
    )
    found = []
    for option in min(options):
        records = [record(line) for line in cell.lines if line["options"][line["target"]] == option]
        metric = dataclasses.asdict(estimate(individual_accuracy(records, rules), seed=seed))
        share = said[option] / len(cell.lines)
        found.append({"value": option, "n": len(records), "metric": metric, "said": share})
    return found


def calibrations(cells: Sequence[Cell]) -> Iterator[Data]:
    for cell in cells:
        found = calibration(cell.lines, seed=cell.run.manifest["identity"]["seed"])
        if found is not None:
            yield {"task": cell.task, "label": cell.label, **dataclasses.asdict(found)}


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


def agreements(cells: Sequence[Cell], options: Options) -> tuple[list[agreement.Report], list[str]]:
    """Of tasks whose samples come in pairs; where it cannot be made, a note says why."""
    paired = {variant.task for cell in cells for variant in cell.run.paired}
    tasks = dict.fromkeys(cell.variant.task for cell in cells if cell.variant.task in paired)
    found, notes = [], []
    for task in tasks:
        own = [cell for cell in cells if cell.variant.task == task]
        logged = any(line["pair_cosine"] is not None for cell in own for line in cell.lines)
        if options.measure is agreement.from_log and not logged:
            continue  # no dual encoder answered it: nothing is wrong
        runs = list({cell.run.folder: cell.run for cell in own}.values())
        try:
            reports = agreement.analyse(
                [run.folder for run in runs], options.measure, [task], options.threshold
            )
        except InputError as error:
            notes.append(f"No analysis of agreement for {task}: {error.message}.")
            continue
        names = run_names(runs)
        label = {(names[c.run.folder], c.variant): c.label for c in own}
        for report in reports:
            for row in report["rows"]:  # called as everywhere on the page
                row["label"] = label.get((row["run"], Variant.of(row)), row["label"])
        found += [report for report in reports if report["n_pairs"]]
    return found, notes


def _cosines(report: agreement.Report) -> Data:
    bins = [
        {
            "label": _brief(row["label"]),
            "text": number("", found["value"]),
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
