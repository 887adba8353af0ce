"""Turn a finished run into leaderboard entries, after checking that it is consistent.

The checks catch mistakes: an incomplete run, an edited log or result, a task that differs from the
one here. They do not catch fraud: a run that is made up consistently passes.
"""

import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import PydanticCustomError

from vlm_harness.backends import BACKENDS
from vlm_harness.datasets.files import checksum
from vlm_harness.errors import InputError, listing, not_found
from vlm_harness.files import from_json, to_json, write_text
from vlm_harness.leaderboard.entry import Entry, check_url, dump, entry_of, raise_all
from vlm_harness.logs.group_row import GroupRow
from vlm_harness.logs.identity import digest_of
from vlm_harness.logs.lines import log_path
from vlm_harness.logs.rescore import rescored
from vlm_harness.logs.run import Run
from vlm_harness.logs.schema import Results
from vlm_harness.protocols.protocol import PROTOCOLS
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import PromptSpec, TaskSpec
from vlm_harness.tasks.prompts import prompt_builder
from vlm_harness.types import GRID, SETTINGS, RecordedModel, RecordedTask, ResultRow

TOLERANCE = 1e-9
NORMAL = ("image_mode", "normal")
"""A default that messages omit."""
ROW_KEYS = {
    *GRID, "task_version", "primary_metric", "metrics", "n_samples", "n_groups", "n_incomplete",
    "n_unparsed", "n_tied",
} - {"model"}  # fmt: skip
GROUP_KEYS = {
    *GRID, "group", "group_version", "headline", "aggregates", "members", "n_samples",
    "n_unparsed", "n_tied",
} - {"model", "task"}  # fmt: skip
Problems = Iterator[InputError]


def submit(
    folder: Path, registry: Registry, results: Path, report_url: str | None = None
) -> list[tuple[Path, Entry]]:
    """Check a run and write its entries.

    Returns:
        The files, one per model, and their entries.

    Raises:
        InputError: all problems of the run, in one message; nothing is written.
    """
    entries = entries_of(folder, registry, report_url)
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be created: {error.strerror}", where=results) from None
    written = []
    for entry in entries:
        path = results / entry.file_name
        write_text(path, dump(entry))
        written.append((path, entry))
    return written


def entries_of(folder: Path, registry: Registry, report_url: str | None = None) -> list[Entry]:
    """The entries of a run, one per model; raises as ``submit`` does."""
    if report_url is not None:
        try:
            check_url(report_url)
        except PydanticCustomError as error:
            raise InputError(str(error), where="--report-url") from None
    run = Run(folder)
    rows = Results()
    raise_all(list(_problems(run, registry, rows)))
    known = registry.names("group")  # a group of the user's own is left out
    groups = [row for row in rows.groups if row.complete and row.task in known]
    return [
        _entry(
            run,
            name,
            [row for row in rows if row.model == name],
            [row for row in groups if row.model == name],
            report_url,
        )
        for name in dict.fromkeys(row.model for row in rows)
    ]


# --- problems of a run ----------------------------------------------------------------------------


def _problems(run: Run, registry: Registry, rows: Results) -> Problems:
    """All problems of a run. Appends the results computed from its logs to ``rows``.

    Checks that depend on changed parts are skipped, because their outcome would mean nothing.
    """
    yield from _invented_answers(run)
    changed = list(_changed_identity(run))
    yield from changed
    if not changed:
        yield from _partial(run)
        yield from _changed_tasks(run, registry)
        yield from _changed_groups(run, registry)
    if not run.finished:
        yield InputError(
            "the run is not finished",
            where=run.path,
            hint="Rerun the original command to resume it.",
        )
        return
    edited = list(_changed_logs(run))
    yield from edited
    if changed or edited:
        return
    try:
        found = rescored(run)
    except InputError as error:
        yield error
        return
    rows += found
    rows.groups += found.groups
    yield from _missing_samples(run, rows)
    yield from _changed_results(run, rows)


def _invented_answers(run: Run) -> Problems:
    for name, spec in run.manifest.identity.models.items():
        backend = str(_info(run, name).backend or spec.get("backend"))
        if backend in BACKENDS and BACKENDS.get(backend).answers == "invented":
            yield InputError(
                f"model {name!r} uses the {backend} backend; invented answers are not accepted",
                where=run.path,
            )


def _partial(run: Run) -> Problems:
    """A run of some samples only. ``_missing_samples`` finds missing answers."""
    identity = run.manifest.identity
    rerun = "Rerun without this option, under a new --run-id."
    if identity.limit is not None:
        text = f"the run is limited to {identity.limit} samples per task (--limit)"
        yield InputError(text, where=run.path, hint=rerun)
    if identity.samples:
        text = "the run covers only selected samples (--samples)"
        yield InputError(text, where=run.path, hint=rerun)


def _changed_identity(run: Run) -> Problems:
    identity = run.manifest.identity
    planned = [each.cell for each in identity.cells]
    try:
        consistent = (
            digest_of(identity.to_dict()) == run.manifest.identity_sha256
            and planned == run.cells
            and {cell.task for cell in planned} <= identity.tasks.keys()
            and {cell.model for cell in planned} <= identity.models.keys()
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        consistent = False
    if not consistent:
        yield InputError(
            "the manifest was changed: its identity does not match its checksum and cells",
            where=run.path / "manifest.json",
            hint="Restore the file as the run wrote it, or rerun with --fresh.",
        )


def _changed_logs(run: Run) -> Problems:
    checksums = run.manifest.logs
    if checksums is None:
        yield InputError(
            "the manifest has no checksums of the logs: it is from an older version",
            where=run.path / "manifest.json",
            hint="Rerun the original command: for a finished run, it only adds the checksums.",
        )
        return
    for path in dict.fromkeys(log_path(run.path, cell) for cell in run.cells):
        name = path.relative_to(run.path).as_posix()
        text = None
        if not path.is_file():
            text = "log not found"
        elif name not in checksums:
            text = "the manifest has no checksum of this log"
        elif checksum(path) != checksums[name]:
            text = "the log was changed after the run finished: SHA-256 does not match the manifest"
        if text:
            yield InputError(
                text,
                where=path,
                hint="Restore the file as the run wrote it, or rerun with --fresh.",
            )


def _missing_samples(run: Run, rows: Results) -> Problems:
    identity = run.manifest.identity
    planned = identity.limit is None and not identity.samples
    rerun = "Rerun the original command to evaluate them."
    for row in rows:
        if row.n_errors:
            text = f"{row.n_errors} of {row.n_samples} samples failed: {_cell(row)}"
            yield InputError(text, where=run.path, hint=rerun)
        elif planned and not row.complete:
            text = f"only {row.n_samples} of {row.n_expected} answers are logged: {_cell(row)}"
            yield InputError(text, where=run.path, hint=rerun)


def _changed_results(run: Run, rows: Results) -> Problems:
    path = run.path / "results.json"
    hint = f"`vlm-harness rescore {run.path}` recreates it from the logs."
    try:
        content = from_json(path.read_bytes())
        found = content["results"]
        by_cell = {tuple(row[name] for name in GRID): row for row in found}
        groups = content.get("groups", [])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not the results of a run"
        yield InputError(f"cannot be read: {reason}", where=path, hint=hint)
        return
    text = None
    if len(found) != len(rows):
        text = f"it has {len(found)} rows, but the logs give {len(rows)}"
    for row in rows:
        other = by_cell.get(tuple(row.grid.values()))
        if text is None and other is None:
            text = f"it has no row for {_cell(row)}"
        elif text is None and (difference := _difference(other, row.to_dict())):
            text = f"{_cell(row)}: {difference}"
    if text is None:
        text = _difference(groups, [row.to_dict() for row in rows.groups], ("groups",))
    if text:
        yield InputError(f"it does not match the logs: {text}", where=path, hint=hint)


def _cell(row: ResultRow) -> str:
    settings = [
        value
        for name, value in row.grid.items()
        if name in SETTINGS and value != SETTINGS[name].absent and (name, value) != NORMAL
    ]
    return f"{row.model} on {row.task} ({', '.join([row.protocol, *settings])})"


def _difference(one: Any, other: Any, at: tuple[str, ...] = ()) -> str | None:
    """The first difference between the written and the rescored results, with both values."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*other, *one]):
            if found := _difference(one.get(key), other.get(key), (*at, key)):
                return found
        return None
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            if found := _difference(a, b, (*at, str(number))):
                return found
        return None
    if isinstance(one, float) and isinstance(other, int | float) and type(other) is not bool:
        same = math.isclose(one, other, rel_tol=0, abs_tol=TOLERANCE)
    else:
        same = type(one) is type(other) and one == other
        same = same or (type(one) is int and type(other) is float and one == other)
    if same:
        return None
    where = " ".join(at).replace("metrics ", "metric ")
    return f"{where} is {to_json(one)[:80]}, but the logs give {to_json(other)[:80]}"


# --- tasks that differ ----------------------------------------------------------------------------


def _changed_tasks(run: Run, registry: Registry) -> Problems:
    known = registry.names("task")
    for name in run.manifest.identity.tasks:
        if name not in known:
            yield not_found(
                f"unknown task {name!r}",
                name,
                known,
                where=run.path,
                hint="The leaderboard only takes tasks that everyone can run. Add folders of tasks "
                "with --include-path.",
            )
            continue
        try:
            yield from _changed_task(run, registry.task(name), registry)
        except InputError as error:
            yield error


def _changed_task(run: Run, here: TaskSpec, registry: Registry) -> Problems:
    recorded = run.task(here.task)
    version = recorded.spec.version
    rerun = "Rerun with the current task."
    if version != here.version:
        yield InputError(
            f"the run used version {version} of task {here.task}; the current version is "
            f"{here.version}",
            where=run.path,
            hint=rerun,
        )
        return
    # Parsed with the current schema, so that keys missing in older runs get their defaults.
    one, other = run.spec(here.task).essence(), here.essence()
    changed = [key for key in other if to_json(one[key]) != to_json(other[key])]
    if changed:
        yield InputError(
            f"task {here.task} of the run differs from the current one, though both are version "
            f"{version}: {listing(changed)} differ{'s' if len(changed) == 1 else ''}",
            where=here.at(changed[0]),
            hint=rerun,
        )
        return
    yield from _changed_prompts(run, here, registry)
    yield from _changed_data(recorded, here, registry, run)


def _changed_prompts(run: Run, here: TaskSpec, registry: Registry) -> Problems:
    """Templates, questions and commands; they may come from files other than the task's."""
    for recorded_cell in run.manifest.identity.cells:
        cell = recorded_cell.cell
        if cell.task != here.task or not PROTOCOLS.get(cell.protocol).uses_prompt:
            continue
        use = here.protocols.use(cell.protocol)
        builder = prompt_builder(here, cell.protocol, use, registry)
        described = PromptSpec.descriptive()
        template = {k: v for k, v in recorded_cell.template.items() if k not in described}
        recorded = [template, recorded_cell.question, recorded_cell.command]
        current = [builder.template.essence(), builder.question, builder.commands.get(cell.command)]
        for what, one, other in zip(
            ("template", "question", "command"), recorded, current, strict=True
        ):
            if one != other:
                yield InputError(
                    f"the {what} used for task {here.task} ({cell.protocol}, {cell.command}) "
                    "differs from the current one",
                    where=builder.template.at() if what == "template" else builder.where,
                    hint="Rerun with the current prompts.",
                )
                return


def _changed_data(recorded: RecordedTask, here: TaskSpec, registry: Registry, run: Run) -> Problems:
    """Label corrections, and data files with checksums in the task."""
    overlay = registry.overlay(here.overlay) if here.overlay else None
    before = recorded.overlay and recorded.overlay.get("corrections")
    if before != (overlay and overlay.essence()["corrections"]):
        yield InputError(
            f"the label corrections of task {here.task} differ from the current ones",
            where=overlay.at("corrections") if overlay else run.path,
            hint="Rerun with the current corrections.",
        )
    pinned = here.dataset.source.sha256 if here.dataset.source else {}
    for path, digest in pinned.items():
        if recorded.data.get(path, digest) != digest:
            yield InputError(
                f"the checksum of {path} in the run is not the one of task {here.task}",
                where=here.at("dataset", "source", "sha256"),
                hint="Download the file again, then rerun.",
            )


def _changed_groups(run: Run, registry: Registry) -> Problems:
    """Groups whose scores are defined differently here; those that are unknown are left out."""
    for name, recorded in run.groups.items():
        if name in registry.names("group"):
            try:
                here = registry.group(name)
            except InputError as error:
                yield error
                continue
            keys = ("version", "members", "aggregates")
            changed = [key for key in keys if getattr(here, key) != getattr(recorded, key)]
            if changed:
                yield InputError(
                    f"group {name} of the run differs from the current one: {listing(changed)}",
                    where=here.at(changed[0]),
                    hint="Rerun the original command: for a finished run, it only updates the "
                    "scores of groups.",
                )


# --- the entry ------------------------------------------------------------------------------------


def _entry(
    run: Run, name: str, rows: Sequence[ResultRow], groups: Sequence[GroupRow], url: str | None
) -> Entry:
    manifest = run.manifest
    return entry_of(
        {
            "schema": 1,
            "model": _model(run, name, rows),
            "run": {
                "id": run.name,
                "identity_sha256": manifest.identity_sha256,
                "vlm_harness": manifest.vlm_harness,
                "git_commit": manifest.environment.git_commit,
                "finished": manifest.finished,
                "seed": manifest.identity.seed,
                "command_line": _command_line(manifest.command_line),
                "report_url": url,
            },
            "results": [
                {key: value for key, value in row.to_dict().items() if key in ROW_KEYS}
                for row in rows
            ],
            "groups": [
                {key: value for key, value in row.to_dict().items() if key in GROUP_KEYS}
                for row in groups
            ],
        },
        run.path / "manifest.json",
    )


def _model(run: Run, name: str, rows: Sequence[ResultRow]) -> dict[str, Any]:
    identity = run.manifest.identity
    spec, info = identity.models.get(name, {}), _info(run, name)
    checkpoint = str(info.checkpoint or spec.get("checkpoint") or "")
    if identity.checkpoints.get(name) is not None or checkpoint.startswith(("/", "~")):
        checkpoint = Path(checkpoint).name  # the local path is of no use to others
    encoder = spec.get("vision_encoder") or info.details.get("vision_encoder")
    protocols = {row.protocol for row in rows}
    return {
        "name": name,
        "backend": info.backend or spec.get("backend"),
        "checkpoint": checkpoint,
        "revision": info.revision,
        "parameters": info.parameters,
        "dtype": info.dtype,
        "encoder": encoder,
        # Inferred from the protocols, because backends of recorded answers have no family.
        "family": "dual encoder"
        if protocols == {"similarity"}
        else "other"
        if "similarity" in protocols
        else "mllm",
        "verified": spec.get("verified", True),
    }


def _info(run: Run, name: str) -> RecordedModel:
    """What the model reported about itself after loading."""
    return run.manifest.models.get(name) or RecordedModel()


def _command_line(text: str) -> str:
    """The command line without the folder of the command."""
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    if not words:
        return text
    name = Path(words[0]).name
    # `python -m vlm_harness` and Windows' launcher are the same command.
    words[0] = "vlm-harness" if name in ("__main__.py", "vlm-harness.exe") else name
    return shlex.join(words)
