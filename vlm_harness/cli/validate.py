"""``vlm-harness validate``: check every spec, and render its prompts if its data is available."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from vlm_harness.cli.common import data_dir_option, echo_json, include_path_option, json_option, say
from vlm_harness.errors import HarnessError, InputError
from vlm_harness.paths import data_dir as data_directory
from vlm_harness.paths import spec_roots
from vlm_harness.specs.registry import KINDS, Registry
from vlm_harness.specs.schemas import GroupSpec, TaskSpec

KIND_NAMES = {"overlay": "label_corrections"}
"""Kinds as the table shows them, if they differ from ``--json``."""


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@include_path_option
@data_dir_option
@json_option
def validate(
    paths: tuple[Path, ...], include_path: tuple[str, ...], data_dir: str | None, as_json: bool
) -> None:
    """Check the spec files in PATHS, or all spec files that are found.

    Checks schema, names and templates. If a task's data is available, also builds its samples and
    renders every prompt once.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"no such file or folder: {path}")
    roots = list(dict.fromkeys([*(path.resolve() for path in paths), *spec_roots(include_path)]))
    found = Registry(roots)
    report = list(_check_all(found, [path.resolve() for path in paths], data_directory(data_dir)))
    if paths and not report:
        raise InputError(f"no spec files in {', '.join(map(str, paths))}")
    failed = [entry for entry in report if entry["error"]]
    if as_json:
        echo_json(report)
    else:
        names = [KIND_NAMES.get(entry["kind"], entry["kind"]) for entry in report]
        width = max(map(len, names), default=0)
        for entry, kind in zip(report, names, strict=True):
            mark = "FAIL" if entry["error"] else "ok"
            say(f"{mark:<4}  {kind:<{width}}  {entry['name']}  {entry['note']}".rstrip())
        for entry in failed:
            say(f"\nerror: {entry['error']}", err=True)
        say(f"\n{len(report) - len(failed)} of {len(report)} specs are valid")
    if failed:
        sys.exit(2)


def _check_all(found: Registry, paths: list[Path], root: Path) -> Iterator[dict[str, Any]]:
    for kind in (*KINDS, "command"):
        for name in found.names(kind):
            file = found.file(kind, name).path.resolve()
            if paths and not any(path == file or path in file.parents for path in paths):
                continue
            entry = {"kind": kind, "name": name, "file": str(file), "error": None, "note": ""}
            try:
                entry["note"] = _check(found, kind, name, root)
            except HarnessError as error:
                entry["error"] = str(error)
            yield entry


def _check(found: Registry, kind: str, name: str, root: Path) -> str:
    spec = getattr(found, kind)(name)
    if kind == "model":
        from vlm_harness.backends.resolve import check_args, family

        family(spec)
        check_args(spec)
    if isinstance(spec, TaskSpec):
        return _check_task(found, spec, root)
    if isinstance(spec, GroupSpec):
        return _check_group(found, name)
    return ""


def _check_group(found: Registry, name: str) -> str:
    from vlm_harness.runs.groups import check_scores
    from vlm_harness.specs.groups import tree

    specs = found.group_specs([name])
    tasks = tree(name, specs).tasks
    check_scores(name, specs, {task: found.task(task) for task in tasks})
    return f"({len(tasks)} tasks)"


def _check_task(found: Registry, spec: TaskSpec, root: Path) -> str:
    from vlm_harness.datasets import files
    from vlm_harness.datasets.reader import READERS
    from vlm_harness.runs.plan import check_extractors, check_metrics
    from vlm_harness.tasks.prompts import prompt_builder
    from vlm_harness.tasks.task import load_task

    READERS.check(spec.dataset.reader, spec.at("dataset", "reader"))
    check_metrics(spec)
    if spec.overlay:
        found.overlay(spec.overlay, spec.at("overlay"))
    for name in spec.tables:
        found.table(name, spec.at("tables"))
    builders = []
    for protocol in spec.protocols.declared:
        use = spec.protocols.use(protocol)
        check_extractors(spec, protocol, use)
        builders.append(prompt_builder(spec, protocol, use, found))
    if spec.dataset.reader == "hub":
        return "(prompts not checked: the data is on the hub)"
    if spec.dataset.path is not None:
        try:
            files.locate(spec.dataset, root)
        except InputError:
            return "(prompts not checked: data missing, see --data-dir)"
    task = load_task(spec, found, root)
    option_lists = list(dict.fromkeys(sample.options for sample in task.samples))
    for protocol in spec.protocols.declared:
        check_extractors(spec, protocol, spec.protocols.use(protocol), option_lists)
    for builder in builders:
        for command in builder.commands:
            builder.prompt(task.samples[0], tuple(range(len(task.samples[0].options))), command)
    return f"({len(task.samples)} samples)"
