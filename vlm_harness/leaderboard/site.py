"""The leaderboard as static files: one self-contained page, its data, and reports."""

import hashlib
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from vlm_harness import paths
from vlm_harness.backends import BACKENDS
from vlm_harness.errors import InputError
from vlm_harness.files import write_json, write_text
from vlm_harness.leaderboard.entry import (
    CONFIGURATION,
    Entry,
    EntryGroup,
    EntryMetric,
    EntryResult,
    GroupRow,
    Row,
    group_rows,
    rows,
)
from vlm_harness.logs.labels import common_prefix, score_title
from vlm_harness.logs.lines import slug
from vlm_harness.metrics import METRICS
from vlm_harness.metrics.display import chance, interval, number, scale
from vlm_harness.protocols import PROTOCOLS
from vlm_harness.published.rows import PublishedRow
from vlm_harness.published.tables import load, paper_tables
from vlm_harness.report import templating as html
from vlm_harness.specs import validation as spec_check
from vlm_harness.specs import yamlfile
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import UNVERIFIED, TaskSpec
from vlm_harness.specs.spec import Spec
from vlm_harness.types import SETTINGS, Estimate

Data = dict[str, Any]
Chances = Mapping[tuple[str, str], float]
"""By task and metric."""
UNKNOWN = Estimate(value=None, ci_low=None, ci_high=None, n=0, chance=None)
"""Only the value of a published number is known."""
SETTINGS_OF_ROW = CONFIGURATION[1:]
"""The fields of ``EntryResult.configuration`` after the task."""


def build(
    output: Path,
    entries: Sequence[Entry],
    published: Sequence[PublishedRow],
    registry: Registry,
    reports: Path | None = None,
) -> Path:
    """Write the site to a folder; other files in the folder are kept.

    Args:
        reports: folder with reports of runs, named after an entry
            (``tiny-clip__0123456789.html``) or its run (``my-run.html``).

    Returns:
        The path of the page.

    Raises:
        InputError: the folder cannot be written to, or an entry has an unknown task.
    """
    newest = [row for row in rows(entries) if row.newest]
    groups = [row for row in group_rows(entries) if row.newest]
    shown: list[Row | GroupRow] = [*newest, *groups]
    runs = list({id(row.entry): row.entry for row in shown}.values())
    found = {id(entry): _report(entry, reports) for entry in runs}
    numbers = {id(entry): number for number, entry in enumerate(runs)}
    chances = _chances(newest)
    families = []
    for name, members in _families(newest, published, registry).items():
        results = [row for row in newest if row.result.task in members]
        printed = [row for row in published if row.task in members]
        own = [row for row in groups if row.result.members[0] in members]
        described = _family(name, list(map(registry.task, members)), chances)
        described["tasks"] += _group_columns([row.result for row in own], registry)
        found_rows = _run_rows([*results, *own], numbers)
        families.append({**described, "rows": [*found_rows, *_published_rows(printed, registry)]})
    data = {
        "metrics": {**_metrics(families), **_scores(groups)},
        "settings": {
            name: {
                "usual": [value for value in (setting.usual, setting.absent) if value is not None],
                "words": setting.words,
            }
            for name, setting in SETTINGS.items()
        },
        "unverified": UNVERIFIED,
        "runs": [_run(entry, found[id(entry)]) for entry in runs],
        "families": families,
    }
    page = html.render(
        "index.html.j2",
        (*html.LIBRARIES, "site.js"),
        data,
        styles=["site.css"],
        title="vlm-harness leaderboard",
        families=families,
        n_entries=len(entries),
        n_published=len(published),
        built=datetime.now(UTC).date().isoformat(),
    )
    _make(output)
    write_text(output / "index.html", page)
    write_json(
        output / "results.json",
        {
            "schema": 1,
            "entries": [entry.plain() for entry in entries],
            "published": [asdict(row) for row in published],
        },
    )
    for name in filter(None, found.values()):
        assert reports is not None
        _make(output / "reports")
        shutil.copyfile(reports / name, output / "reports" / name)
    return output / "index.html"


def _metrics(families: Sequence[Data]) -> Data:
    """The declarations of all metrics of tasks on the site."""
    tasks = (task for family in families for task in family["tasks"] if "members" not in task)
    names = dict.fromkeys(name for task in tasks for name in task["metrics"])
    return {name: _declared(name, METRICS.declared(name).short) for name in names}


def _scores(groups: Sequence[GroupRow]) -> Data:
    """The declarations of the scores of groups: those of their metrics."""
    return {
        _score_key(row.result, name): _declared(score.of[0], score_title(name))
        for row in groups
        for name, score in row.result.aggregates.items()
    }


def _declared(name: str, short: str) -> Data:
    metric = METRICS.declared(name)
    return {"short": short, "unit": metric.unit, "direction": metric.direction}


def _score_key(group: EntryGroup, name: str) -> str:
    """A key for a score that cannot be that of a metric, or of a score of other metrics."""
    return f"{name} of {' + '.join(group.aggregates[name].of)}"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=folder) from None


# --- families -------------------------------------------------------------------------------------


def family(task: TaskSpec) -> str:
    """The largest group of a task, which is its last; without groups, the task itself."""
    return task.groups[-1] if task.groups else task.task


def _families(
    results: Sequence[Row], published: Sequence[PublishedRow], registry: Registry
) -> dict[str, list[str]]:
    """Tasks that have a row, by family, in the order of ``families.yaml`` and of the registry."""
    wanted = {row.result.task for row in results} | {row.task for row in published}
    found: dict[str, list[str]] = {}
    for name in registry.names("task"):
        if name in wanted:
            found.setdefault(family(registry.task(name)), []).append(name)
    order = [*_described(), *found]
    return {name: found[name] for name in dict.fromkeys(order) if name in found}


class Family(Spec):
    """Title and description of a tab of the site."""

    title: str
    text: str


class Families(Spec):
    """``leaderboard/site/families.yaml``."""

    families: dict[str, Family]


@cache
def _described() -> Mapping[str, Family]:
    path = paths.bundled() / "leaderboard" / "site" / "families.yaml"
    return spec_check.parse(Families, yamlfile.load(path)).families


def _family(name: str, tasks: Sequence[TaskSpec], chances: Chances) -> Data:
    described = _described().get(name) or Family(title=name, text="")
    prefix = common_prefix(task.task for task in tasks)
    return {
        "name": name,
        "title": described.title,
        "text": described.text,
        "tasks": [
            {
                "name": task.task,
                # The rest of its name, which differs from the others.
                "title": task.task.removeprefix(prefix).replace("_", " "),
                "description": task.description,
                "version": task.version,
                "primary": task.primary_metric,
                "metrics": list(task.metrics),
                "chance": {
                    m: {"value": found, "text": f"{scale(m) * found:.3g}"}
                    for m in task.metrics
                    for found in [chances.get((task.task, m))]
                    if found is not None
                },
            }
            for task in tasks
        ],
    }


def _group_columns(groups: Sequence[EntryGroup], registry: Registry) -> list[Data]:
    """A column for each group of tasks, with its headline as the primary metric."""
    columns = []
    for name, group in {group.group: group for group in groups}.items():
        columns.append(
            {
                "name": name,
                "title": name.replace("_", " "),
                "description": registry.group(name).description,
                "version": group.group_version,
                "members": list(group.members),
                "primary": _score_key(group, group.headline),
                "metrics": [_score_key(group, each) for each in group.aggregates],
                "chance": {
                    _score_key(group, each): {
                        "value": score.chance,
                        "text": chance(score.of[0], [Estimate(**_estimate(score))]),
                    }
                    for each, score in group.aggregates.items()
                    if score.chance is not None
                },
            }
        )
    return columns


def _chances(results: Sequence[Row]) -> Chances:
    """Chance by task and metric, from the paper's tables or else from runs."""
    found = {}
    for row in results:
        for name, metric in row.result.metrics.items():
            if metric.chance is not None:
                found[row.result.task, name] = metric.chance
    for table in paper_tables():
        for column in load(str(table)).columns:
            if column.chance is not None:
                found[column.task, column.metric] = column.chance / 100
    return found


# --- rows -----------------------------------------------------------------------------------------


def _run_rows(results: Sequence[Row | GroupRow], numbers: Mapping[int, int]) -> list[Data]:
    """One row per model and configuration; its cells may come from several runs."""
    found: dict[tuple[str, ...], Data] = {}
    for row in results:
        model, result = row.entry.model, row.result
        how = result.configuration[1:]
        found_row = found.setdefault(
            (model.name, *how),
            {
                "id": _id(model.name, *how),
                "source": "run",
                "recorded": model.backend in BACKENDS
                and BACKENDS.get(model.backend).answers == "recorded",
                "model": model.name,
                "kind": model.family,
                "encoder": model.encoder,
                "parameters": model.parameters,
                "size": _size(model.parameters),
                "checkpoint": model.checkpoint,
                "verified": True,
                **dict(zip(SETTINGS_OF_ROW, how, strict=True)),
                "cells": {},
            },
        )
        found_row["verified"] &= model.verified
        found_row["cells"][result.configuration[0]] = {
            "run": numbers[id(row.entry)],
            **_measured(result),
            "n_samples": result.n_samples,
            "n_unparsed": result.n_unparsed,
            "n_tied": result.n_tied,
        }
    return list(found.values())


def _measured(result: EntryResult | EntryGroup) -> Data:
    """The version of a task or group, and its metrics or scores as printed."""
    if isinstance(result, EntryGroup):
        return {
            "version": result.group_version,
            "metrics": {
                _score_key(result, name): _printed(score.of[0], Estimate(**_estimate(score)))
                for name, score in result.aggregates.items()
                if score.value is not None
            },
        }
    return {
        "version": result.task_version,
        "metrics": {
            name: _printed(name, Estimate(**_estimate(metric)))
            for name, metric in result.metrics.items()
            if metric.value is not None
        },
    }


def _estimate(metric: EntryMetric) -> Data:
    return {name: getattr(metric, name) for name in Estimate.model_fields}


def _kind_of_model(protocol: str) -> str:
    return "dual encoder" if PROTOCOLS.get(protocol).kind == "similarity" else "mllm"


def _published_rows(rows: Sequence[PublishedRow], registry: Registry) -> list[Data]:
    """One row per model as printed; several if a task has several numbers for it."""
    found: dict[tuple[str, ...], list[Data]] = {}
    for row in rows:
        key = (row.name, row.protocol, row.decoding, str(row.cited))
        same = found.setdefault(key, [])
        fitting = next((each for each in same if row.task not in each["cells"]), None)
        if fitting is None:
            fitting = {
                "id": _id("published", *key, str(len(same))),
                "source": "published",
                "model": row.name,
                "kind": row.family or _kind_of_model(row.protocol),
                "encoder": row.encoder,
                "size": _named_size(row.name),
                "protocol": row.protocol,
                "decoding": row.decoding,
                "cited": row.cited,
                "reference": row.reference,
                "cells": {},
            }
            same.append(fitting)
        fitting["cells"][row.task] = {
            "metrics": {
                name: _printed(name, UNKNOWN.model_copy(update={"value": value}))
                for name, value in row.values.items()
            },
            "tables": row.tables,
            "note": row.note,
            "repeat": _repeat(row),
            "verified": _verified(row, registry),
        }
    for same in found.values():
        if len(same) > 1:  # different numbers under one name: tell them apart by table
            for each in same:
                numbers = {number for cell in each["cells"].values() for number in cell["tables"]}
                each["tables"] = sorted(numbers)
    return [row for rows in found.values() for row in rows]


def _printed(name: str, metric: Estimate) -> Data:
    """A metric with its numbers as texts, formatted as everywhere else."""
    assert metric.value is not None
    return {
        **metric.to_dict(),
        "n": metric.n or None,
        "text": number(name, metric.value),
        "ends": interval(name, metric.ci_low, metric.ci_high, "–"),
        "chance_text": chance(name, [metric]),
    }


def _size(parameters: int | None) -> Data | None:
    if parameters is None:
        return None
    text = f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"
    return {"value": parameters, "text": text}


def _named_size(name: str) -> Data | None:
    """The size in a name: models are named after the size of their LLM, as in LLaVA-1.5-7B."""
    size = re.search(r"(\d+(?:\.\d+)?)B\b", name)
    return None if size is None else {"value": float(size[1]) * 1e9, "text": f"{size[1]} B"}


def _repeat(row: PublishedRow) -> str | None:
    if not row.repeatable:
        return None
    parts = ["--model", str(row.model), "--tasks", row.task, "--protocol", row.protocol]
    parts += ["--decoding", row.decoding] if row.decoding != "greedy" else []
    return shlex.join(["vlm-harness", *parts])


def _verified(row: PublishedRow, registry: Registry) -> bool:
    """Whether the project has run the checkpoint that the command of a row uses."""
    known = row.model in registry.names("model")
    return row.model is None or not known or registry.model(row.model).verified


def _id(*parts: str) -> str:
    """A short id that is the same in every build of the site, so that URLs stay valid."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


# --- runs -----------------------------------------------------------------------------------------


def _run(entry: Entry, report: str | None) -> Data:
    return {
        "id": entry.run.id,
        "finished": entry.run.finished,
        "version": entry.run.vlm_harness,
        "commit": entry.run.git_commit,
        "seed": entry.run.seed,
        "identity": entry.run.identity_sha256,
        "command": entry.run.command_line,
        "report": f"reports/{report}" if report else entry.run.report_url,
    }


def _report(entry: Entry, reports: Path | None) -> str | None:
    """The file name of the entry's report in a folder of reports."""
    if reports is None:
        return None
    names = (entry.file_name.removesuffix(".json"), slug(entry.run.id))
    return next((f"{name}.html" for name in names if (reports / f"{name}.html").is_file()), None)
