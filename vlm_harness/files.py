"""Strict JSON, and atomic file writes."""

import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vlm_harness.errors import InputError


def to_json(value: Any, **options: Any) -> str:
    """Readable JSON; non-ASCII characters are kept, lone surrogates (not valid UTF-8) escaped."""
    text = json.dumps(value, ensure_ascii=False, **options)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, **options)
    return text


def from_json(text: str | bytes) -> Any:
    """Parse JSON; non-finite numbers (NaN, Infinity, 1e999) are rejected.

    Raises:
        ValueError: the text is not valid JSON; the message says why.
    """

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(f"{digits[:20]} is not a JSON number")
        return value

    try:
        return json.loads(text, parse_constant=number, parse_float=number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, *, hint: str | None = None) -> Any:
    """The content of a JSON file, parsed by ``from_json``.

    Raises:
        InputError: the file cannot be read, or is not JSON (with line and column).
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
    """Parse JSON that was read from a file. Raises as ``read_json`` does.

    Args:
        by_hand: whether such files are written by hand; if so, errors are located as ``path:line``.
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
    """Replace a file atomically.

    Raises:
        InputError: the file cannot be written; the old file is unchanged.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())  # otherwise a power failure can leave an empty file
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise InputError(f"cannot be written: {error.strerror}", where=path) from None
