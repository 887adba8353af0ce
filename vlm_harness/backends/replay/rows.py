"""The rows of a file of recorded answers, and the values in them."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_harness.datasets.records import (
    Row,
    csv_rows,
    json_lines,
    json_value,
    read_bytes,
    read_text,
)
from vlm_harness.errors import InputError, SampleError, shown
from vlm_harness.types import OptionScore, Sample

Order = tuple[int, ...] | tuple[str, ...]


def read_rows(path: Path) -> list[Row]:
    text = read_text(path, read_bytes(path))
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        rows: Any = csv_rows(text, path, delimiter="\t" if suffix == ".tsv" else ",")
    elif suffix == ".json" and not _has_several_values(text):
        rows = _rows_of(json_value(text, path))
    else:
        rows = json_lines(text, path)
    if not isinstance(rows, list) or not rows:
        raise InputError("expected a non-empty list of records", where=path)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(
                f"expected a record (a JSON object), found {shown(row)}",
                where=f"{path}: row {number}",
                hint="Write one object per answer, or an object of answers by id.",
            )
    return rows


def _has_several_values(text: str) -> bool:
    """Whether a text is JSON Lines, as are some files named ``.json``."""
    try:
        json.loads(text)
    except RecursionError:
        return False
    except json.JSONDecodeError as error:
        return error.msg == "Extra data"
    return False


def _rows_of(content: Any) -> Any:
    """A list of records; or the records of an object that holds such a list, or answers by id."""
    if not isinstance(content, dict):
        return content
    lists = [v for v in content.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
    if len(lists) == 1:
        return lists[0]
    return [{"key": key, "id": key, **_columns_of(value)} for key, value in content.items()]


def _columns_of(value: Any) -> dict[str, Any]:
    if are_scores(value):
        return {"scores": value}
    return value if isinstance(value, dict) else {"text": value}


def has(row: Mapping[str, Any], column: str) -> bool:
    """Whether a row has a column, or a value nested in one."""
    first, dot, rest = column.partition(".")
    if column in row:
        return True
    return bool(dot) and isinstance(row.get(first), Mapping) and has(row[first], rest)


def value_of(row: Mapping[str, Any], column: str | None) -> Any:
    """The value of a column, or one nested in it: ``response.text``. None for null and NaN."""
    if column is None:
        return None
    if column in row:
        value = row[column]
        return None if isinstance(value, float) and math.isnan(value) else value
    first, _, rest = column.partition(".")
    inner = row.get(first)
    return value_of(inner, rest) if rest and isinstance(inner, Mapping) else None


def is_text(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)
    )


def text_of(value: Any) -> str | None:
    """A recorded text; some recordings have a list of one text."""
    if isinstance(value, list) and is_text(value):
        return str(value[0])
    return None if value is None else str(value)


def are_scores(value: Any) -> bool:
    value = _parsed_json(value)
    items = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, list | Mapping) or not items:
        return False
    return all(
        isinstance(item, int | float | Mapping) and not isinstance(item, bool) for item in items
    )


def _parsed_json(value: Any) -> Any:
    """A list or object that is written as text, as in a CSV."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def order_in(value: Any) -> Order | None:
    value = _parsed_json(value)
    if isinstance(value, list) and value:
        if all(isinstance(item, int) and not isinstance(item, bool) for item in value):
            return tuple(value)
        if all(isinstance(item, str) for item in value):
            return tuple(value)
    return None


def option_scores(value: Any, sample: Sample) -> tuple[OptionScore, ...]:
    value = _parsed_json(value)
    if isinstance(value, Mapping):
        by_option = {str(key).casefold(): score for key, score in value.items()}
        missing = [option for option in sample.options if option.casefold() not in by_option]
        if missing:
            raise SampleError(f"no recorded score for the options {shown(missing)}")
        value = [by_option[option.casefold()] for option in sample.options]
    if not isinstance(value, list) or len(value) != len(sample.options):
        raise SampleError(f"expected {len(sample.options)} recorded scores, got {shown(value)}")
    try:
        return tuple(
            OptionScore(**item) if isinstance(item, dict) else OptionScore(float(item))
            for item in value
        )
    except (TypeError, ValueError):
        raise SampleError(f"recorded scores must be numbers, got {shown(value)}") from None
