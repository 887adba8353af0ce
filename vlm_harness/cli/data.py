"""``vlm-harness data``: list, verify or download the data of tasks."""

import sys
from pathlib import Path
from typing import Any

import click

from vlm_harness.cli.common import (
    data_dir_option,
    echo_json,
    include_path_option,
    json_option,
    registry,
    say,
    split,
)
from vlm_harness.datasets.files import checksum, how_to_get, locate
from vlm_harness.datasets.prepare import download, recorded_checksums
from vlm_harness.errors import InputError, SampleError, listing
from vlm_harness.images import load
from vlm_harness.paths import data_dir as data_directory
from vlm_harness.paths import inside
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import TaskSpec
from vlm_harness.tasks.task import load_task


@click.group()
def data() -> None:
    """List, verify or download the data of tasks."""


@data.command("list")
@click.argument("tasks", nargs=-1)
@include_path_option
@data_dir_option
@json_option
def list_data(
    tasks: tuple[str, ...], include_path: tuple[str, ...], data_dir: str | None, as_json: bool
) -> None:
    """List tasks and whether their data is available on this machine."""
    found = registry(include_path)
    root = data_directory(data_dir)
    rows: list[dict[str, Any]] = []
    for name in _select(found, tasks):
        spec = found.task(name)
        rows.append(
            {
                "task": name,
                "here": _here(spec, root),
                "reader": spec.dataset.reader,
                "path": spec.dataset.path,
            }
        )
    if as_json:
        echo_json({"data_dir": str(root), "tasks": rows})
        return
    say(f"data directory: {root}\n")
    for row in rows:
        mark = "available" if row["here"] else "missing"
        say(f"{mark:<9} {row['task']:<32} {_path(row['path'], row['reader'])}")


@data.command()
@click.argument("tasks", nargs=-1)
@include_path_option
@data_dir_option
@json_option
def check(
    tasks: tuple[str, ...], include_path: tuple[str, ...], data_dir: str | None, as_json: bool
) -> None:
    """Verify the data of TASKS: read every row and decode every image.

    Without TASKS, checks all tasks whose data is available.
    """
    found = registry(include_path)
    root = data_directory(data_dir)
    names = _select(found, tasks)
    if not tasks:
        names = [name for name in names if _here(found.task(name), root)]
        if not names:
            raise InputError(
                "no task data found", where=root, hint="See `vlm-harness data prepare`."
            )
    reports = [_check(found, found.task(name), root) for name in names]
    if as_json:
        echo_json({"data_dir": str(root), "tasks": reports})
    else:
        for report in reports:
            _print_check(report)
    if any(report["problems"] for report in reports):
        sys.exit(2)


@data.command()
@click.argument("tasks", nargs=-1, required=True)
@click.option(
    "--dry-run", is_flag=True, help="Print the download instructions without downloading."
)
@include_path_option
@data_dir_option
def prepare(
    tasks: tuple[str, ...], dry_run: bool, include_path: tuple[str, ...], data_dir: str | None
) -> None:
    """Download the data of TASKS, or print what to download and where to put it.

    Checksums of downloaded files are recorded in <data-dir>/checksums.json for `data check`.
    """
    found = registry(include_path)
    root = data_directory(data_dir)
    missing = []
    for spec in _unique_data([found.task(name) for name in _select(found, tasks)]):
        source = spec.dataset.source
        if _here(spec, root):
            say(f"{spec.task}: available")
        elif source is None or not source.hub or source.folder is None or dry_run:
            missing.append(spec.task)
            say(f"{spec.task}: missing\n{how_to_get(spec.dataset, root)}\n")
        else:
            say(f"{spec.task}: downloading {source.hub} to {root / source.folder}")
            try:
                for path in download(source, root):
                    say(f"  {path}")
            except InputError as error:
                say(f"{spec.task}: {error}\n", err=True)
            if not _here(spec, root):
                missing.append(spec.task)
    if missing and not dry_run:
        them = "it" if len(missing) == 1 else "them"
        raise InputError(
            f"{listing(missing)}: not downloaded. Download {them} by hand as shown above."
        )


def _select(found: Registry, tasks: tuple[str, ...]) -> list[str]:
    return found.select_tasks(split(tasks)) if tasks else found.names("task")


def _unique_data(specs: list[TaskSpec]) -> list[TaskSpec]:
    """One task for each dataset path or name."""

    def place(spec: TaskSpec) -> str:
        return str(spec.dataset.path or spec.dataset.name or spec.task)

    return list({place(spec): spec for spec in reversed(specs)}.values())[::-1]


def _here(spec: TaskSpec, root: Path) -> bool:
    if spec.dataset.path is None:
        return spec.dataset.reader != "hub"
    try:
        return locate(spec.dataset, root).exists()
    except InputError:
        return False


def _path(path: str | list[str] | None, reader: str) -> str:
    if path is None:
        return f"({reader})"  # downloaded from the hub, or generated by the reader
    return " or ".join(path) if isinstance(path, list) else path


def _check(found: Registry, spec: TaskSpec, root: Path) -> dict[str, Any]:
    report: dict[str, Any] = {"task": spec.task, "problems": [], "n_samples": 0, "n_images": 0}
    problems = report["problems"]
    try:
        task = load_task(spec, found, root)
    except InputError as error:
        problems.append(str(error))
        return report
    refs = {ref.path: ref for sample in task.samples for ref in sample.images}
    for ref in refs.values():
        try:
            load(ref)
        except SampleError as error:
            problems.append(str(error))
    known = {
        **recorded_checksums(root),
        **(spec.dataset.source.sha256 if spec.dataset.source else {}),
    }
    for path in (*task.data_sha256, *refs):
        if path in known and checksum(inside(root, path)) != known[path]:
            problems.append(f"{path}: checksum mismatch: the file differs from the recorded one")
    report.update(
        n_samples=len(task.samples),
        n_images=len(refs),
        n_without_image=sum(not sample.images for sample in task.samples),
        n_checksums=sum(path in known for path in (*task.data_sha256, *refs)),
        sha256=dict(task.data_sha256),
        groups=_groups(task.spec, task.samples),
    )
    return report


def _groups(spec: TaskSpec, samples: Any) -> dict[str, str]:
    found = {}
    for kind in ("pair", "set"):
        sizes: dict[str, int] = {}
        for sample in samples:
            key = getattr(sample, kind)
            if key is not None:
                sizes[key] = sizes.get(key, 0) + 1
        if sizes:
            complete = sum(size == getattr(spec.grouping, kind).size for size in sizes.values())
            found[kind] = f"{complete} of {len(sizes)} {kind}s complete"
    return found


def _print_check(report: dict[str, Any]) -> None:
    mark = "FAIL" if report["problems"] else "ok"
    facts = [f"{report['n_samples']} samples", f"{report['n_images']} images"]
    if report["n_images"] and report.get("n_without_image"):
        facts.append(f"{report['n_without_image']} samples without an image")
    facts += list(report.get("groups", {}).values())
    say(f"{mark:<4}  {report['task']}: {', '.join(facts)}")
    for problem in report["problems"][:10]:
        say(f"      {problem}", err=True)
    if len(report["problems"]) > 10:
        say(f"      ... and {len(report['problems']) - 10} more", err=True)
