"""Send a finished run to Weights & Biases (``run --wandb-args``).

Everything is read from the run's folder, so repeating the command sends the run again.
"""

import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from vlm_harness.errors import InputError, listing, not_found, suggest
from vlm_harness.export.rows import Result, labels, load
from vlm_harness.logs.lines import slug
from vlm_harness.logs.run import Run
from vlm_harness.types import SETTINGS, LogLine

OPTION = "--wandb-args"
ARGUMENTS = (
    "project", "entity", "name", "group", "job_type", "tags", "notes", "id", "resume", "mode",
    "dir",
)  # fmt: skip
"""Arguments of ``wandb.init`` that users may set; ``tags`` are separated by ``;``."""
ALLOWED = {
    "mode": ("online", "offline", "disabled"),
    "resume": ("allow", "never", "must", "auto"),
}

MOST_ROWS = 10_000
"""Maximum number of samples sent per cell of the grid."""
MOST_TEXT = 10_000
"""Maximum number of characters sent per text."""
SAMPLE = ("sample_id", "pair", "set", "category", "order_index", "prompt")
RESULT = ("model", "task", "task_version", "protocol", *SETTINGS)
NUMBERS = ("value", "ci_low", "ci_high", "n", "chance")


def arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Parse ``k=v,...`` into arguments of ``wandb.init``, before anything is computed.

    Raises:
        InputError: wandb is not installed, or an argument is unknown or has an invalid value.
    """
    spec = importlib.util.find_spec("wandb")
    # A folder named wandb, which wandb creates for its files, is found too; it has no origin.
    if spec is None or spec.origin is None:
        raise InputError(
            "wandb is not installed",
            where=OPTION,
            hint='Install it with: pip install "vlm-harness[wandb]"',
        )
    found: dict[str, Any] = {}
    for part in filter(None, (item.strip() for text in texts for item in text.split(","))):
        # Values are strings: a project may be called 7.
        name, equals, value = (each.strip() for each in part.partition("="))
        if not equals or not value:
            raise InputError(f"expected key=value, found {part!r}", where=OPTION)
        _check(name, value)
        tags = filter(None, (tag.strip() for tag in value.split(";")))
        found[name] = list(tags) if name == "tags" else value
    return found


def _check(name: str, value: str) -> None:
    if name not in ARGUMENTS:
        raise not_found(f"unknown argument {name!r}", name, ARGUMENTS, where=OPTION)
    if value not in ALLOWED.get(name, (value,)):
        raise InputError(
            f"{name}: {value!r} is not allowed{suggest(value, ALLOWED[name])}; allowed: "
            f"{listing(ALLOWED[name])}",
            where=OPTION,
        )
    if name == "dir" and not Path(value).is_dir():
        raise InputError(f"folder not found: '{value}'", where=OPTION)


def log(folder: Path, arguments: dict[str, Any]) -> str:
    """Send a finished run.

    Returns:
        Where to find the run, and what was truncated.

    Raises:
        InputError: wandb failed for any reason. The run's folder is unchanged.
    """
    try:
        return _log(folder, arguments)
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        raise InputError(
            f"the run is finished, but wandb failed: {reason}",
            where=OPTION,
            hint=f"No results are lost: {folder} is complete. Repeat the command to send it again.",
        ) from error


def _log(folder: Path, arguments: dict[str, Any]) -> str:
    import wandb

    recorded = Run(folder)
    results = load([folder])
    manifest = recorded.manifest
    config = {**manifest.config.to_dict(), "identity_sha256": manifest.identity_sha256}
    # $WANDB_NAME overrides our default name. Without console="off", wandb sends our output too.
    name = {} if os.environ.get("WANDB_NAME") else {"name": recorded.name}
    settings = wandb.Settings(console="off")
    run = wandb.init(config=config, settings=settings, **{**name, **arguments})
    try:
        cut = _send(run, recorded, results)
    except BaseException:
        with suppress(Exception):
            run.finish(exit_code=1)
        raise
    run.finish()
    note = f"; only the first {MOST_ROWS} samples of {listing(cut)}" if cut else ""
    if run.offline:
        return f"wandb: to send the run, use `wandb sync {Path(run.dir).parent}`{note}"
    return f"wandb: {run.url or 'nothing was sent'}{note}"


def _send(run: Any, recorded: Run, results: Sequence[Result]) -> list[str]:
    """Send a run; returns the cells whose samples were truncated."""
    import wandb

    cut = []
    for result, name in zip(results, _names(results), strict=True):
        run.summary.update(_summary(result, name))
        if result.members:  # a group: its samples are those of its tasks
            continue
        table, more = _samples(recorded, result)
        run.log({f"samples/{name}": table}, commit=False)  # one step for all
        cut += [name] if more else []
    columns = [*RESULT, "metric", *NUMBERS, "complete"]
    run.log({"results": wandb.Table(columns, [*_rows(results)], allow_mixed_types=True)})
    artifact = wandb.Artifact(slug(recorded.name).replace("+", "-")[:128], "results")
    for file in ("results.json", "manifest.json"):
        artifact.add_file(str(recorded.path / file))
    run.log_artifact(artifact)
    return cut


def _names(results: Sequence[Result]) -> list[str]:
    """``task/protocol``, preceded by the model and followed by settings if there are several.

    wandb also uses these as file names.
    """
    several = len({result.row.model for result in results}) > 1
    return [
        "/".join(
            slug(part)
            for part in (
                *([result.row.model] if several else []),
                result.row.task,
                result.row.protocol,
                *(f"{field} {value}" for field, value in label.items()),
            )
        )
        for result, label in zip(results, labels(results), strict=True)
    ]


def _summary(result: Result, name: str) -> dict[str, Any]:
    """All metrics of a row, including those that tables omit."""
    return {
        f"{name}/{metric}{suffix}": value
        for metric, found in result.row.metrics.items()
        for value, suffix in (
            (found.value, ""),
            (found.ci_low, "/ci_low"),
            (found.ci_high, "/ci_high"),
        )
        if value is not None
    }


def _rows(results: Sequence[Result]) -> Iterator[list[Any]]:
    for result in results:
        row = {**result.row.grid, "task_version": result.version}
        for metric, found in result.row.metrics.items():
            numbers = (getattr(found, name) for name in NUMBERS)
            yield [*(row[name] for name in RESULT), metric, *numbers, result.row.complete]


def _samples(recorded: Run, result: Result) -> tuple[Any, bool]:
    """The first samples of a cell as a table, and whether it has more."""
    import wandb

    columns = [
        *SAMPLE, "options", "response", "prediction", "target", "correct", "status", "error",
    ]  # fmt: skip
    lines = list(islice(recorded.lines([result.row.cell]), MOST_ROWS + 1))
    rows = [_sample(line) for line in lines[:MOST_ROWS]]
    return wandb.Table(columns=columns, data=rows, allow_mixed_types=True), len(lines) > MOST_ROWS


def _sample(line: LogLine) -> list[Any]:
    options, response = line.options, line.response
    answer = response.text
    return [
        *(_short(getattr(line, name)) for name in SAMPLE),
        _short(json.dumps(options, ensure_ascii=False)),
        _short(json.dumps(response.scores) if answer is None else answer),
        None if line.prediction is None else _short(options[line.prediction]),
        _short(options[line.target]),
        line.correct,
        line.status,
        _short(line.error),
    ]


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MOST_TEXT:
        return f"{value[:MOST_TEXT]}... ({len(value) - MOST_TEXT} more characters)"
    return value
