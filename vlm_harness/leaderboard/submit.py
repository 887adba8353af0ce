"""A finished run becomes entries of the leaderboard, after its parts were held against each other.

What is checked catches mistakes: a run that is not whole, a log or a result that was edited, a task
that is not the one here. It is no proof against fraud: who makes up all of it consistently is not
found out.
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
from vlm_harness.logs.identity import digest_of
from vlm_harness.logs.lines import log_path
from vlm_harness.logs.rescore import rescored
from vlm_harness.logs.run import Run
from vlm_harness.protocols.protocol import PROTOCOLS
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import PromptSpec, TaskSpec
from vlm_harness.tasks.prompts import prompt_builder
from vlm_harness.types import GRID, SETTINGS, RecordedModel, RecordedTask, ResultRow

TOLERANCE = 1e-9
NORMAL = ("image_mode", "normal")
"""Which goes without saying."""
ROW_KEYS = {
    *GRID, "task_version", "primary_metric", "metrics", "n_samples", "n_groups", "n_incomplete",
    "n_unparsed", "n_tied",
} - {"model"}  # fmt: skip
Problems = Iterator[InputError]
Rows = list[ResultRow]


def submit(
    folder: Path, registry: Registry, results: Path, report_url: str | None = None
) -> list[tuple[Path, Entry]]:
    """Check a run, and write its entries.

    Returns:
        The files, one a model, and what they hold.

    Raises:
        InputError: everything that speaks against it, in one message; nothing is written then.
    """
    entries = entries_of(folder, registry, report_url)
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made: {error.strerror}", where=results) from None
    written = []
    for entry in entries:
        path = results / entry.file_name
        write_text(path, dump(entry))
        written.append((path, entry))
    return written


def entries_of(folder: Path, registry: Registry, report_url: str | None = None) -> list[Entry]:
    """The entries of a run, one a model; raises as ``submit`` does."""
    if report_url is not None:
        try:
            check_url(report_url)
        except PydanticCustomError as error:
            raise InputError(str(error), where="--report-url") from None
    run = Run(folder)
    rows: Rows = []
    raise_all(list(_problems(run, registry, rows)))
    models = dict.fromkeys(row.model for row in rows)
    return [
        _entry(run, name, [row for row in rows if row.model == name], report_url) for name in models
    ]


# --- what speaks against a run --------------------------------------------------------------------


def _problems(run: Run, registry: Registry, rows: Rows) -> Problems:
    """All that speaks against a run; puts what its logs give into ``rows``.

    What rests on something that was changed is not looked at: it would say nothing.
    """
    yield from _invented(run)
    changed = list(_changed_identity(run))
    yield from changed
    if not changed:
        yield from _partial(run)
        yield from _changed_tasks(run, registry)
    if not run.finished:
        yield InputError(
            "the run is not finished",
            where=run.path,
            hint="Run the same command again: it goes on where it was stopped.",
        )
        return
    edited = list(_changed_logs(run))
    yield from edited
    if changed or edited:
        return
    try:
        rows += rescored(run)
    except InputError as error:
        yield error
        return
    yield from _missing_samples(run, rows)
    yield from _changed_results(run, rows)


def _invented(run: Run) -> Problems:
    for name, spec in run.manifest.identity.models.items():
        backend = str(_info(run, name).backend or spec.get("backend"))
        if backend in BACKENDS and BACKENDS.get(backend).answers == "invented":
            yield InputError(
                f"the model {name} is of the backend {backend}, which makes its answers up",
                where=run.path,
            )


def _partial(run: Run) -> Problems:
    """A run of a part of the samples. What of it is missing is seen in its rows."""
    identity = run.manifest.identity
    again = "Run it again without, under another --run-id."
    if identity.limit is not None:
        text = f"the run was limited to {identity.limit} samples of each task (--limit)"
        yield InputError(text, where=run.path, hint=again)
    if identity.samples:
        text = "the run was of chosen samples alone (--samples)"
        yield InputError(text, where=run.path, hint=again)


def _changed_identity(run: Run) -> Problems:
    identity = run.manifest.identity
    planned = [each.cell for each in identity.cells]
    try:
        whole = (
            digest_of(identity.to_dict()) == run.manifest.identity_sha256
            and planned == run.cells
            and {cell.task for cell in planned} <= identity.tasks.keys()
            and {cell.model for cell in planned} <= identity.models.keys()
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        whole = False
    if not whole:
        yield InputError(
            "the manifest was changed: its identity is not that of its checksum and its cells",
            where=run.path / "manifest.json",
            hint="Put the file back as the run wrote it, or run it again with --fresh.",
        )


def _changed_logs(run: Run) -> Problems:
    sums = run.manifest.logs
    if sums is None:
        yield InputError(
            "the manifest has no checksums of the logs: it was written before they were kept",
            where=run.path / "manifest.json",
            hint="Run the same command again: it finds the run finished, and adds them.",
        )
        return
    for path in dict.fromkeys(log_path(run.path, cell) for cell in run.cells):
        name = path.relative_to(run.path).as_posix()
        text = None
        if not path.is_file():
            text = "the log is not there"
        elif name not in sums:
            text = "the manifest has no checksum of this log"
        elif checksum(path) != sums[name]:
            text = "the log was changed since the run finished: its SHA-256 is not the manifest's"
        if text:
            yield InputError(
                text,
                where=path,
                hint="Put back what the run wrote, or run it again with --fresh.",
            )


def _missing_samples(run: Run, rows: Rows) -> Problems:
    identity = run.manifest.identity
    planned = identity.limit is None and not identity.samples
    again = "Run the same command again: it asks them again."
    for row in rows:
        if row.n_errors:
            text = f"{row.n_errors} of {row.n_samples} samples failed: {_cell(row)}"
            yield InputError(text, where=run.path, hint=again)
        elif planned and not row.complete:
            text = f"only {row.n_samples} of {row.n_expected} lines are there: {_cell(row)}"
            yield InputError(text, where=run.path, hint=again)


def _changed_results(run: Run, rows: Rows) -> Problems:
    path = run.path / "results.json"
    hint = f"`vlm-harness rescore {run.path}` writes it anew, from the logs."
    try:
        found = from_json(path.read_bytes())["results"]
        by_cell = {tuple(row[name] for name in GRID): row for row in found}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "these are no results of a run"
        yield InputError(f"cannot be read: {reason}", where=path, hint=hint)
        return
    text = None
    if len(found) != len(rows):
        text = f"it has {len(found)} rows, and the logs give {len(rows)}"
    for row in rows:
        other = by_cell.get(tuple(row.grid.values()))
        if text is None and other is None:
            text = f"it has no row of {_cell(row)}"
        elif text is None and (difference := _difference(other, row.to_dict())):
            text = f"{_cell(row)}: {difference}"
    if text:
        yield InputError(f"it is not what the logs give: {text}", where=path, hint=hint)


def _cell(row: ResultRow) -> str:
    settings = [
        value
        for name, value in row.grid.items()
        if name in SETTINGS and value != SETTINGS[name].absent and (name, value) != NORMAL
    ]
    return f"{row.model} on {row.task} ({', '.join([row.protocol, *settings])})"


def _difference(one: Any, other: Any, at: tuple[str, ...] = ()) -> str | None:
    """The first place where what was written is not what the logs give, and both values."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*other, *one]):
            if found := _difference(one.get(key), other.get(key), (*at, key)):
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
    return f"{where} is {to_json(one)[:80]}, and {to_json(other)[:80]} by the logs"


# --- tasks that are not those here ----------------------------------------------------------------


def _changed_tasks(run: Run, registry: Registry) -> Problems:
    known = registry.names("task")
    for name in run.manifest.identity.tasks:
        if name not in known:
            yield not_found(
                f"the task {name!r} is not known here",
                name,
                known,
                where=run.path,
                hint="The leaderboard holds results of tasks that all can run. --include-path "
                "takes a folder of more.",
            )
            continue
        try:
            yield from _changed_task(run, registry.task(name), registry)
        except InputError as error:
            yield error


def _changed_task(run: Run, here: TaskSpec, registry: Registry) -> Problems:
    recorded = run.task(here.task)
    version = recorded.spec.version
    again = "Run it again with the task as it is here."
    if version != here.version:
        yield InputError(
            f"the run is of version {version} of task {here.task}, and here it is {here.version}",
            where=run.path,
            hint=again,
        )
        return
    # Through the schema of today, so that what an older run left out has its default.
    one, other = run.spec(here.task).essence(), here.essence()
    changed = [key for key in other if to_json(one[key]) != to_json(other[key])]
    if changed:
        yield InputError(
            f"the task {here.task} of the run is not the one here, though both are version "
            f"{version}: {listing(changed)} differ{'s' if len(changed) == 1 else ''}",
            where=here.at(changed[0]),
            hint=again,
        )
        return
    yield from _changed_words(run, here, registry)
    yield from _changed_data(recorded, here, registry, run)


def _changed_words(run: Run, here: TaskSpec, registry: Registry) -> Problems:
    """Templates and commands may come from other files than the task's."""
    for asked in run.manifest.identity.cells:
        protocol, command = asked.cell.protocol, asked.cell.command
        if asked.cell.task != here.task or not PROTOCOLS.get(protocol).uses_prompt:
            continue
        asks = prompt_builder(here, protocol, here.protocols.use(protocol), registry)
        described = PromptSpec.descriptive()
        template = {k: v for k, v in asked.template.items() if k not in described}
        recorded = [template, asked.question, asked.command]
        now = [asks.template.essence(), asks.question, asks.commands.get(command)]
        for what, one, other in zip(
            ("template", "question", "command"), recorded, now, strict=True
        ):
            if one != other:
                yield InputError(
                    f"the {what} that task {here.task} was asked with ({protocol}, "
                    f"{command}) is not the one here",
                    where=asks.template.at() if what == "template" else asks.where,
                    hint="Run it again with the prompts as they are here.",
                )
                return


def _changed_data(recorded: RecordedTask, here: TaskSpec, registry: Registry, run: Run) -> Problems:
    """Label corrections, and files whose checksums the task gives."""
    overlay = registry.overlay(here.overlay) if here.overlay else None
    before = recorded.overlay and recorded.overlay.get("corrections")
    if before != (overlay and overlay.essence()["corrections"]):
        yield InputError(
            f"the label corrections of task {here.task} are not those here",
            where=overlay.at("corrections") if overlay else run.path,
            hint="Run it again with the corrections as they are here.",
        )
    pinned = here.dataset.source.sha256 if here.dataset.source else {}
    for path, digest in pinned.items():
        if recorded.data.get(path, digest) != digest:
            yield InputError(
                f"the run read another {path} than the one that task {here.task} names",
                where=here.at("dataset", "source", "sha256"),
                hint="Fetch it again, and run it again.",
            )


# --- the entry ------------------------------------------------------------------------------------


def _entry(run: Run, name: str, rows: Sequence[ResultRow], url: str | None) -> Entry:
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
        },
        run.path / "manifest.json",
    )


def _model(run: Run, name: str, rows: Sequence[ResultRow]) -> dict[str, Any]:
    identity = run.manifest.identity
    spec, info = identity.models.get(name, {}), _info(run, name)
    checkpoint = str(info.checkpoint or spec.get("checkpoint") or "")
    if identity.checkpoints.get(name) is not None or checkpoint.startswith(("/", "~")):
        checkpoint = Path(checkpoint).name  # where it lies on this machine helps nobody
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
        # What it can be asked tells what it is: a backend of recorded answers is of no family.
        "family": "dual encoder"
        if protocols == {"similarity"}
        else "other"
        if "similarity" in protocols
        else "mllm",
    }


def _info(run: Run, name: str) -> RecordedModel:
    """What the model told of itself once loaded."""
    return run.manifest.models.get(name) or RecordedModel()


def _command_line(text: str) -> str:
    """Without the folder that the command lies in; all else is as it was."""
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
