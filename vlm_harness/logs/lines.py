"""Reads and writes log lines and manifests of run folders."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vlm_harness.errors import InputError
from vlm_harness.files import from_json, read_json, to_json
from vlm_harness.logs.schema import parse
from vlm_harness.types import GridFields, LogLine, Manifest


def slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-.") or "x"


def log_path(folder: Path, of: GridFields) -> Path:
    """Path of the sample log for a model, task and protocol in a run folder."""
    return folder / "samples" / f"{slug(of.model)}__{slug(of.task)}__{slug(of.protocol)}.jsonl"


def read_lines(path: Path) -> Iterator[LogLine]:
    """The lines of a sample log. A truncated last line (from a crash) is skipped.

    Raises:
        InputError: a line is not a valid log line; the message gives its number.
    """
    return (each.line for each in read_raw_lines(path))


class RawLine(NamedTuple):
    """A log line with its bytes, to rewrite a log without some of its lines."""

    line: LogLine
    data: bytes


def read_raw_lines(path: Path) -> Iterator[RawLine]:
    """As ``read_lines``, with the bytes of each line."""
    with path.open("rb") as stream:
        for number, data in enumerate(stream, 1):
            if not data.endswith(b"\n"):
                return
            try:
                yield RawLine(parse(LogLine, from_json(data)), data)
            except ValueError as error:
                reason = str(error) if type(error) is ValueError else "not JSON"
                raise InputError(
                    f"invalid log line: {reason}",
                    where=f"{path}:{number}",
                    hint="The log was edited or damaged. Delete the line and rerun the original "
                    "command to retry its sample.",
                ) from None


def dump_line(line: LogLine) -> str:
    return to_json(line.to_dict(), allow_nan=False) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run folder.

    Raises:
        InputError: the folder is not a run folder, or its manifest is damaged.
    """
    path = folder / "manifest.json"
    if not path.exists():
        raise InputError(
            "not a run folder: it has no manifest.json",
            where=folder,
            hint="Run folders are <output-dir>/<run-id>; `vlm-harness run` prints the path.",
        )
    hint = "The file was edited or damaged. To overwrite the run, rerun it with --fresh."
    try:
        return parse(Manifest, read_json(path, hint=hint))
    except ValueError as error:
        raise InputError(
            f"invalid manifest: {error}",
            where=path,
            hint=hint,
        ) from None
