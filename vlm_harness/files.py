"""JSON that can be written again, and files that are written whole or not at all."""

import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vlm_harness.errors import InputError


def to_json(value: Any, **options: Any) -> str:
    """JSON as people read it; halves of surrogate pairs, which UTF-8 has not, are escaped."""
    text = json.dumps(value, ensure_ascii=False, **options)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, **options)
    return text


def from_json(text: str | bytes) -> Any:
    """JSON without the numbers that are none (NaN, Infinity, 1e999), which cannot be written again.

    Raises:
        ValueError: what it is not.
    """

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(f"{digits[:20]} is no number of JSON")
        return value

    try:
        return json.loads(text, parse_constant=number, parse_float=number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, *, hint: str | None = None) -> Any:
    """The content of a JSON file, as ``from_json`` gives it.

    Raises:
        InputError: it cannot be read, or is not JSON, with line and column.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path, hint=hint) from None
    return parse_json(data, path, hint=hint)


def parse_json(
    data: str | bytes,
    path: Path,
    *,
    hint: str | None = None,
    parser: Callable[[str | bytes], Any] = from_json,
    by_hand: bool = False,
) -> Any:
    """The value of JSON that was read from a file. Raises as ``read_json`` does.

    Args:
        by_hand: whether people write such files: the line is part of where an error is, then.
    """
    try:
        return parser(data)
    except json.JSONDecodeError as error:
        where, text = (f"{path}:{error.lineno}", error.msg) if by_hand else (path, str(error))
        raise InputError(f"not valid JSON: {text}", where=where, hint=hint) from None
    except RecursionError:
        raise InputError("not valid JSON: nested too deeply", where=path, hint=hint) from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", where=path, hint=hint) from None


def write_json(path: Path, value: Any) -> None:
    write_text(path, to_json(value, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file by its new content in one step.

    Raises:
        InputError: nothing can be written there; the old file is as it was.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())  # else a power cut may leave the new name with no content
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise InputError(f"cannot be written: {error.strerror}", where=path) from None
