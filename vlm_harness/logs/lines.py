"""Lines of a run's log, and its manifest: where they are, how they are read and written."""

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
    """Where a run folder keeps the lines of a model on a task under a protocol."""
    return folder / "samples" / f"{slug(of.model)}__{slug(of.task)}__{slug(of.protocol)}.jsonl"


def read_lines(path: Path) -> Iterator[LogLine]:
    """The whole lines of a sample log; a line torn by a crash is passed over.

    Raises:
        InputError: a line that is none of a log, with its number.
    """
    return (each.line for each in read_written(path))


class Written(NamedTuple):
    """A line with its bytes, for a file that is to be written again without some of its lines."""

    line: LogLine
    data: bytes


def read_written(path: Path) -> Iterator[Written]:
    """As ``read_lines``."""
    with path.open("rb") as stream:
        for number, data in enumerate(stream, 1):
            if not data.endswith(b"\n"):
                return
            try:
                yield Written(parse(LogLine, from_json(data)), data)
            except ValueError as error:
                reason = str(error) if type(error) is ValueError else "not JSON"
                raise InputError(
                    f"no line of a run's log: {reason}",
                    where=f"{path}:{number}",
                    hint="The log was changed or damaged. Without the line, the command that began "
                    "the run asks the sample again.",
                ) from None


def dump_line(line: LogLine) -> str:
    return to_json(line.to_dict(), allow_nan=False) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """
    Raises:
        InputError: no run folder, or a manifest that is damaged.
    """
    path = folder / "manifest.json"
    if not path.exists():
        raise InputError(
            "there is no manifest.json, so this is no run folder",
            where=folder,
            hint="A run folder is <output-dir>/<run-id>; `vlm-harness run` prints it.",
        )
    try:
        return parse(Manifest, read_json(path))
    except ValueError as error:
        raise InputError(
            f"not the manifest of a run: {error}",
            where=path,
            hint="The file was changed or damaged. --fresh throws the run away and repeats it.",
        ) from None
