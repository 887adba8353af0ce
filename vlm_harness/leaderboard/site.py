"""The leaderboard as static files: one page that carries all it needs, its data, and reports."""

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
from vlm_harness.leaderboard.entry import ASKED_BY, Entry, Row, rows
from vlm_harness.logs.labels import common_prefix
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
from vlm_harness.specs.schemas import Spec, TaskSpec
from vlm_harness.types import SETTINGS, Estimate

Data = dict[str, Any]
Chances = Mapping[tuple[str, str], float]
"""By task and metric."""
UNKNOWN = Estimate(value=None, ci_low=None, ci_high=None, n=0, chance=None)
"""Of a published number nothing else is known."""
ASKED = ASKED_BY[1:]
"""What ``EntryResult.asked`` holds behind the task."""


def build(
    output: Path,
    entries: Sequence[Entry],
    published: Sequence[PublishedRow],
    registry: Registry,
    reports: Path | None = None,
) -> Path:
    """Write the site into a folder; other files there stay.

    Args:
        reports: folder with reports of runs, called as an entry (``tiny-clip__0123456789.html``) or
            as its run (``my-run.html``).

    Returns:
        The page.

    Raises:
        InputError: nothing can be written there, or an entry is of a task that there is not.
    """
    newest = [row for row in rows(entries) if row.newest]
    runs = list({id(row.entry): row.entry for row in newest}.values())
    found = {id(entry): _report(entry, reports) for entry in runs}
    numbers = {id(entry): number for number, entry in enumerate(runs)}
    chances = _chances(newest)
    families = []
    for name, members in _families(newest, published, registry).items():
        results = [row for row in newest if row.result.task in members]
        printed = [row for row in published if row.task in members]
        families.append(
            {
                **_family(name, list(map(registry.task, members)), chances),
                "rows": [*_run_rows(results, numbers), *_published_rows(printed)],
            }
        )
    data = {
        "metrics": _metrics(families),
        "settings": {
            name: {
                "usual": [value for value in (setting.usual, setting.absent) if value is not None],
                "words": setting.words,
            }
            for name, setting in SETTINGS.items()
        },
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
    """What is declared of each metric of the site."""
    names = dict.fromkeys(
        name for family in families for task in family["tasks"] for name in task["metrics"]
    )
    found = {name: METRICS.declared(name) for name in names}
    return {
        name: {"short": metric.short, "unit": metric.unit, "direction": metric.direction}
        for name, metric in found.items()
    }


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write there: {error.strerror}", where=folder) from None


# --- families -------------------------------------------------------------------------------------


def family(task: TaskSpec) -> str:
    """The widest group of a task: its last; a task without one stands alone."""
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
    """How a tab of the site is called, and what it is about."""

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
    said = _described().get(name) or Family(title=name, text="")
    prefix = common_prefix(task.task for task in tasks)
    return {
        "name": name,
        "title": said.title,
        "text": said.text,
        "tasks": [
            {
                "name": task.task,
                # The end of its name tells it from the others.
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


def _chances(results: Sequence[Row]) -> Chances:
    """What a guess gives, by task and metric: as the paper's tables print it, else as runs say."""
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


def _run_rows(results: Sequence[Row], numbers: Mapping[int, int]) -> list[Data]:
    """A row for each model and way of asking it; its cells may be of several runs."""
    found: dict[tuple[str, ...], Data] = {}
    for row in results:
        model, result = row.entry.model, row.result
        how = result.asked[1:]
        cells = found.setdefault(
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
                **dict(zip(ASKED, how, strict=True)),
                "cells": {},
            },
        )["cells"]
        cells[result.task] = {
            "run": numbers[id(row.entry)],
            "version": result.task_version,
            "metrics": {
                name: _said(name, Estimate(**metric.model_dump()))
                for name, metric in result.metrics.items()
                if metric.value is not None
            },
            "n_samples": result.n_samples,
            "n_unparsed": result.n_unparsed,
            "n_tied": result.n_tied,
        }
    return list(found.values())


def _kind_of_model(protocol: str) -> str:
    return "dual encoder" if PROTOCOLS.get(protocol).kind == "similarity" else "mllm"


def _published_rows(rows: Sequence[PublishedRow]) -> list[Data]:
    """A row for each model as printed; where a task has several numbers of it, several."""
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
                name: _said(name, UNKNOWN.model_copy(update={"value": value}))
                for name, value in row.values.items()
            },
            "tables": row.tables,
            "note": row.note,
            "repeat": _repeat(row),
        }
    for same in found.values():
        if len(same) > 1:  # numbers that differ under one name: the table tells them apart
            for each in same:
                numbers = {number for cell in each["cells"].values() for number in cell["tables"]}
                each["tables"] = sorted(numbers)
    return [row for rows in found.values() for row in rows]


def _said(name: str, metric: Estimate) -> Data:
    """A metric with its numbers as they are said everywhere."""
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
    """As models are called by the size of their language model: LLaVA-1.5-7B."""
    size = re.search(r"(\d+(?:\.\d+)?)B\b", name)
    return None if size is None else {"value": float(size[1]) * 1e9, "text": f"{size[1]} B"}


def _repeat(row: PublishedRow) -> str | None:
    if not row.repeatable:
        return None
    parts = ["--model", str(row.model), "--tasks", row.task, "--protocol", row.protocol]
    parts += ["--decoding", row.decoding] if row.decoding != "greedy" else []
    return shlex.join(["vlm-harness", *parts])


def _id(*parts: str) -> str:
    """Short, and the same in every building of the site, so that addresses stay."""
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
    """The name of the entry's report in a folder of reports."""
    if reports is None:
        return None
    names = (entry.file_name.removesuffix(".json"), slug(entry.run.id))
    return next((f"{name}.html" for name in names if (reports / f"{name}.html").is_file()), None)
