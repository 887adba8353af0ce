"""The records of JSON, JSON Lines and CSV texts.

Lines end at a line feed only: a record may contain U+2028, U+2029 or U+0085, which
``str.splitlines`` would take for the end of a line.
"""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_harness.errors import InputError, clip, listing
from vlm_harness.files import parse_json

Row = Mapping[str, Any]

# The default of 128 KiB is less than an image in base64.
csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


def read_bytes(path: Path) -> bytes:
    """Read a data file as bytes."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from None


def read_text(path: Path, data: bytes) -> str:
    """Decode a data file as UTF-8, without the byte order mark that Windows programs write."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"not UTF-8: {error.reason}", where=f"{path}:{line}") from None


def json_value(text: str, path: Path) -> Any:
    """The value of a JSON text."""
    return parse_json(text, path, parser=json.loads, by_hand=True)


def json_lines(text: str, path: Path) -> list[Any]:
    """The value on each line. Empty lines are skipped."""
    import jsonlines

    try:
        with jsonlines.Reader(io.StringIO(text)) as reader:
            return list(reader.iter(skip_empty=True))
    except RecursionError:
        raise InputError("not valid JSON: nested too deeply", where=path) from None
    except jsonlines.InvalidLineError as error:
        raise InputError(f"not valid JSON: {error}", where=f"{path}:{error.lineno}") from None


def csv_rows(
    text: str, path: Path, *, columns: Sequence[str] | None = None, delimiter: str = ","
) -> list[Row]:
    """The rows of a CSV with a header (or ``columns``). Values stay text, including '01'.

    A quoted value may contain the delimiter and line breaks.
    """
    stream = io.StringIO(text, newline="")
    reader = csv.DictReader(stream, fieldnames=columns, delimiter=delimiter, strict=True)
    rows: list[Row] = []
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise InputError(f"duplicate column {listing(duplicates)}", where=f"{path}:1")
        for row in reader:
            if None in row or None in row.values():
                missing = sum(value is None for value in row.values())
                count = len(names) - missing + len(row.get(None, ()))  # surplus under the key None
                raise InputError(
                    f"expected {len(names)} values ({clip(', '.join(names))}), found {count}",
                    where=f"{path}:{reader.line_num}",
                )
            rows.append({(key or "").strip(): value for key, value in row.items()})
    except csv.Error as error:
        where = f"{path}:{reader.reader.line_num}"
        raise InputError(f"not valid CSV: {error}", where=where) from None
    return rows
