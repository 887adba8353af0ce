"""A finished run becomes entries of the leaderboard, after its parts were held against each other.

What is checked catches mistakes: a run that is not whole, a log or a result that was edited, a task
that is not the one here. It is no proof against fraud: who makes up all of it consistently is not
found out.
"""

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import PydanticCustomError

from vlm_harness.backends import BACKENDS
from vlm_harness.datasets.files import checksum
from vlm_harness.errors import InputError, listing, suggest
from vlm_harness.files import from_json, to_json, write_text
from vlm_harness.leaderboard.entry import Entry, check_url, dump, entry_of, raise_all
from vlm_harness.logs.identity import digest_of
from vlm_harness.logs.lines import log_path
from vlm_harness.logs.rescore import rescored
from vlm_harness.logs.run import RecordedRun
from vlm_harness.protocols.protocol import PROTOCOLS
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import DESCRIPTIVE, Spec, TaskSpec
from vlm_harness.tasks.prompts import asker
from vlm_harness.types import Variant

TOLERANCE = 1e-9
ROW_KEYS = (
    "task", "task_version", "protocol", "command", "order", "decoding", "image_mode", "labels",
    "primary_metric", "metrics", "n_samples", "n_groups", "n_incomplete", "n_unparsed", "n_tied",
)  # fmt: skip
Problems = Iterator[InputError]
Rows = list[dict[str, Any]]


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
    run = RecordedRun(folder)
    rows: Rows = []
    raise_all(list(_problems(run, registry, rows)))
    models = dict.fromkeys(row["model"] for row in rows)
    return [
        _entry(run, name, [r for r in rows if r["model"] == name], report_url) for name in models
    ]


# --- what speaks against a run --------------------------------------------------------------------


def _problems(run: RecordedRun, registry: Registry, rows: Rows) -> Problems:
    """All that speaks against a run; puts what its logs give into ``rows``.

    What rests on something that was changed is not looked at: it would say nothing.
    """
    yield from _invented(run)
    changed = list(_changed_identity(run))
    yield from changed
    if not changed:
        yield from _partial(run)
        yield from _changed_tasks(run, registry)
    if run.manifest.get("finished") is None:
        yield InputError(
            "the run is not finished",
            where=run.folder,
            hint="Run the same command again: it goes on where it was stopped.",
        )
        return
    edited = list(_changed_logs(run))
    yield from edited
    if changed or edited:
        return
    try:
        rows += rescored(run, run.manifest["config"]["labels"])
    except InputError as error:
        yield error
        return
    yield from _missing_samples(run, rows)
    yield from _changed_results(run, rows)


def _invented(run: RecordedRun) -> Problems:
    for name, spec in run.manifest["identity"].get("models", {}).items():
        backend = _info(run, name).get("backend", spec.get("backend"))
        if backend in BACKENDS and BACKENDS.get(backend).answers == "invented":
            yield InputError(
                f"the model {name} is of the backend {backend}, which makes its answers up",
                where=run.folder,
            )


def _partial(run: RecordedRun) -> Problems:
    """A run of a part of the samples. What of it is missing is seen in its rows."""
    identity = run.manifest["identity"]
    again = "Run it again without, under another --run-id."
    if identity["limit"] is not None:
        text = f"the run was limited to {identity['limit']} samples of each task (--limit)"
        yield InputError(text, where=run.folder, hint=again)
    if identity.get("samples"):
        text = "the run was of chosen samples alone (--samples)"
        yield InputError(text, where=run.folder, hint=again)


def _changed_identity(run: RecordedRun) -> Problems:
    manifest = run.manifest
    identity = manifest["identity"]
    try:
        planned = [Variant.of(cell["variant"]) for cell in identity["cells"]]
        whole = (
            digest_of(identity) == manifest["identity_sha256"]
            and planned == run.variants
            and {variant.task for variant in planned} <= identity["tasks"].keys()
            and {variant.model for variant in planned} <= identity["models"].keys()
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        whole = False
    if not whole:
        yield InputError(
            "the manifest was changed: its identity is not that of its checksum and its cells",
            where=run.folder / "manifest.json",
            hint="Put the file back as the run wrote it, or run it again with --fresh.",
        )


def _changed_logs(run: RecordedRun) -> Problems:
    sums = run.manifest.get("logs")
    if sums is None:
        yield InputError(
            "the manifest has no checksums of the logs: it was written before they were kept",
            where=run.folder / "manifest.json",
            hint="Run the same command again: it finds the run finished, and adds them.",
        )
        return
    for path in dict.fromkeys(log_path(run.folder, variant) for variant in run.variants):
        name = path.relative_to(run.folder).as_posix()
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


def _missing_samples(run: RecordedRun, rows: Rows) -> Problems:
    planned = run.manifest["identity"]["limit"] is None and not run.manifest["identity"].get(
        "samples"
    )
    again = "Run the same command again: it asks them again."
    for row in rows:
        if row["n_errors"]:
            text = f"{row['n_errors']} of {row['n_samples']} samples failed: {_cell(row)}"
            yield InputError(text, where=run.folder, hint=again)
        elif planned and not row["complete"]:
            text = f"only {row['n_samples']} of {row['n_expected']} lines are there: {_cell(row)}"
            yield InputError(text, where=run.folder, hint=again)


def _changed_results(run: RecordedRun, rows: Rows) -> Problems:
    path = run.folder / "results.json"
    hint = f"`vlm-harness rescore {run.folder}` writes it anew, from the logs."
    try:
        found = from_json(path.read_bytes())["results"]
        by_cell = {Variant.of(row): row for row in found}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "these are no results of a run"
        yield InputError(f"cannot be read: {reason}", where=path, hint=hint)
        return
    text = None
    if len(found) != len(rows):
        text = f"it has {len(found)} rows, and the logs give {len(rows)}"
    for row in rows:
        other = by_cell.get(Variant.of(row))
        if text is None and other is None:
            text = f"it has no row of {_cell(row)}"
        elif text is None and (difference := _difference(other, row)):
            text = f"{_cell(row)}: {difference}"
    if text:
        yield InputError(f"it is not what the logs give: {text}", where=path, hint=hint)


def _cell(row: Mapping[str, Any]) -> str:
    how = ", ".join(
        row[name] for name in Variant._fields[2:] if row[name] not in ("none", "normal")
    )
    return f"{row['model']} on {row['task']} ({how})"


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


def _changed_tasks(run: RecordedRun, registry: Registry) -> Problems:
    known = registry.names("task")
    for name in run.manifest["identity"]["tasks"]:
        if name not in known:
            yield InputError(
                f"the task {name!r} is not known here{suggest(name, known)}",
                where=run.folder,
                hint="The leaderboard holds results of tasks that all can run. --include-path "
                "takes a folder of more.",
            )
            continue
        try:
            yield from _changed_task(run, registry.task(name), registry)
        except InputError as error:
            yield error


def _changed_task(run: RecordedRun, here: TaskSpec, registry: Registry) -> Problems:
    recorded = run.task(here.task)
    version = recorded["spec"]["version"]
    again = "Run it again with the task as it is here."
    if version != here.version:
        yield InputError(
            f"the run is of version {version} of task {here.task}, and here it is {here.version}",
            where=run.folder,
            hint=again,
        )
        return
    # Through the schema of today, so that what an older run left out has its default.
    one, other = _essence(run.spec(here.task)), _essence(here)
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


def _essence(spec: Spec) -> dict[str, Any]:
    """A spec without what it says of itself."""
    dump: dict[str, Any] = json.loads(spec.model_dump_json(exclude=set(DESCRIPTIVE)))
    for key in DESCRIPTIVE & (dump.get("dataset") or {}).keys():
        del dump["dataset"][key]
    return dump


def _changed_words(run: RecordedRun, here: TaskSpec, registry: Registry) -> Problems:
    """Templates and commands may come from other files than the task's."""
    for cell in run.manifest["identity"]["cells"]:
        variant = cell["variant"]
        protocol = variant["protocol"]
        if variant["task"] != here.task or not PROTOCOLS.get(protocol).uses_prompt:
            continue
        asks = asker(here, protocol, getattr(here.protocols, protocol), registry)
        template = {k: v for k, v in cell["template"].items() if k not in DESCRIPTIVE}
        recorded = [template, cell.get("question"), cell.get("command")]
        now = [_essence(asks.template), asks.question, asks.commands.get(variant["command"])]
        for what, one, other in zip(
            ("template", "question", "command"), recorded, now, strict=True
        ):
            if one != other:
                yield InputError(
                    f"the {what} that task {here.task} was asked with ({protocol}, "
                    f"{variant['command']}) is not the one here",
                    where=asks.template.at() if what == "template" else asks.where,
                    hint="Run it again with the prompts as they are here.",
                )
                return


def _changed_data(
    recorded: Mapping[str, Any], here: TaskSpec, registry: Registry, run: RecordedRun
) -> Problems:
    """Label corrections, and files whose checksums the task gives."""
    overlay = registry.overlay(here.overlay) if here.overlay else None
    before = recorded["overlay"] and recorded["overlay"].get("corrections")
    if before != (overlay and _essence(overlay)["corrections"]):
        yield InputError(
            f"the label corrections of task {here.task} are not those here",
            where=overlay.at("corrections") if overlay else run.folder,
            hint="Run it again with the corrections as they are here.",
        )
    pinned = here.dataset.source.sha256 if here.dataset.source else {}
    for path, digest in pinned.items():
        if recorded["data"].get(path, digest) != digest:
            yield InputError(
                f"the run read another {path} than the one that task {here.task} names",
                where=here.at("dataset", "source", "sha256"),
                hint="Fetch it again, and run it again.",
            )


# --- the entry ------------------------------------------------------------------------------------


def _entry(run: RecordedRun, name: str, rows: Sequence[dict[str, Any]], url: str | None) -> Entry:
    manifest = run.manifest
    return entry_of(
        {
            "schema": 1,
            "model": _model(run, name, rows),
            "run": {
                "id": run.name,
                "identity_sha256": manifest["identity_sha256"],
                "vlm_harness": manifest.get("vlm_harness"),
                "git_commit": _mapping(manifest.get("environment")).get("git_commit"),
                "finished": manifest["finished"],
                "seed": manifest["identity"]["seed"],
                "command_line": _command_line(str(manifest.get("command_line") or "")),
                "report_url": url,
            },
            "results": [{key: row[key] for key in ROW_KEYS} for row in rows],
        },
        run.folder / "manifest.json",
    )


def _model(run: RecordedRun, name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    identity = run.manifest["identity"]
    spec, info = identity["models"].get(name, {}), _info(run, name)
    checkpoint = str(info.get("checkpoint") or spec.get("checkpoint") or "")
    if identity["checkpoints"].get(name) is not None or checkpoint.startswith(("/", "~")):
        checkpoint = Path(checkpoint).name  # where it lies on this machine helps nobody
    encoder = spec.get("vision_encoder") or _mapping(info.get("details")).get("vision_encoder")
    protocols = {row["protocol"] for row in rows}
    return {
        "name": name,
        "backend": info.get("backend") or spec.get("backend"),
        "checkpoint": checkpoint,
        "revision": info.get("revision"),
        "parameters": info.get("parameters"),
        "dtype": info.get("dtype"),
        "encoder": encoder,
        # What it can be asked tells what it is: a backend of recorded answers is of no family.
        "family": "dual encoder"
        if protocols == {"similarity"}
        else "other"
        if "similarity" in protocols
        else "mllm",
    }


def _info(run: RecordedRun, name: str) -> Mapping[str, Any]:
    """What the model told of itself once loaded."""
    found: Mapping[str, Any] = run.manifest.get("models", {}).get(name) or {}
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


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
