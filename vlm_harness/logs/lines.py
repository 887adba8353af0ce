"""Lines of a run's log, and its manifest: where they are, how they are read and written."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vlm_harness.errors import InputError
from vlm_harness.files import from_json, to_json
from vlm_harness.logs.schema import check_line, check_manifest
from vlm_harness.types import Outcome, Variant

Line = dict[str, Any]


def slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-.") or "x"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder against other processes.

    Raises:
        InputError: another process holds it, or nothing can be written there.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            "the run folder is in use by another process",
            where=folder,
            hint="Wait for it to finish, or choose another --run-id.",
        ) from None
    except OSError as error:
        raise InputError(f"cannot write there: {error.strerror}", where=folder) from None
    try:
        yield
    finally:
        lock.release()


def verdict(outcome: Outcome, target: int) -> Line:
    """The fields of a line that follow from an outcome and a label."""
    failed = outcome.status == "error"
    return {
        "prediction": outcome.prediction,
        "tied": outcome.tied,
        "extraction": None if failed else outcome.detail,
        "target": target,
        "correct": outcome.status == "ok" and outcome.prediction == target,
        "status": outcome.status,
        "error": outcome.detail if failed else None,
    }


def key_of(line: Line) -> tuple[Any, ...]:
    return line_key(variant_of(line), line["sample_id"], line["order"])


def variant_of(line: Line) -> Variant:
    return Variant(
        line["model"],
        line["task"],
        line["protocol"],
        line["command"],
        line["order_mode"],
        line["decoding"],
        line["image_mode"],
        line["labels"],
    )


def log_path(folder: Path, variant: Variant) -> Path:
    """Where a run folder keeps the lines of a model on a task under a protocol."""
    name = f"{slug(variant.model)}__{slug(variant.task)}__{slug(variant.protocol)}.jsonl"
    return folder / "samples" / name


def read_lines(path: Path) -> Iterator[Line]:
    """The whole lines of a sample log; a line torn by a crash is passed over."""
    with path.open("rb") as stream:
        for number, text in enumerate(stream, 1):
            if not text.endswith(b"\n"):
                return
            try:
                line = from_json(text)
                check_line(line)
            except ValueError as error:
                reason = str(error) if type(error) is ValueError else "not JSON"
                raise InputError(
                    f"no line of a run's log: {reason}",
                    where=f"{path}:{number}",
                    hint="The log was changed or damaged. Without the line, the command that began "
                    "the run asks the sample again.",
                ) from None
            yield line


def read_manifest(folder: Path, missing_ok: bool = False) -> dict[str, Any]:
    path = folder / "manifest.json"
    if missing_ok and not path.is_file():
        return {}
    try:
        manifest: dict[str, Any] = from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            "there is no manifest.json, so this is no run folder",
            where=folder,
            hint="A run folder is <output-dir>/<run-id>; `vlm-harness run` prints it.",
        ) from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", where=path) from None
    try:
        check_manifest(manifest)
    except ValueError as error:
        raise InputError(
            f"not the manifest of a run: {error}",
            where=path,
            hint="The file was changed or damaged. --fresh throws the run away and repeats it.",
        ) from None
    return manifest


def dump_line(line: Line) -> str:
    return to_json(line, allow_nan=False) + "\n"


def line_key(variant: Variant, sample_id: str, order: Sequence[int]) -> tuple[Any, ...]:
    return (
        variant.model,
        variant.task,
        variant.protocol,
        sample_id,
        tuple(order),
        variant.command,
        variant.decoding,
        variant.image_mode,
    )
