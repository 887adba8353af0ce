"""The options and captions of a sample. A value that is missing in the row never becomes one."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vlm_harness.errors import listing, shown
from vlm_harness.specs.schemas import TaskSpec
from vlm_harness.specs.templates import compile_template, render_tree
from vlm_harness.tasks.sample_images import is_missing


def texts(
    spec: TaskSpec, name: str, context: Mapping[str, Any], row: Mapping[str, Any]
) -> tuple[str, ...]:
    """The rendered options or captions.

    Raises:
        ValueError: no list, an empty list, or an item that is null, NaN or empty, or that is made
            of such a value; the message names the column.
    """
    source = getattr(spec.sample, name)
    value = render_tree(source, context)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"{name} must be a list with at least one item, found {shown(value)}")
    found = tuple(str(item) for item in value)
    missing = _Missing.of(spec, source, row)
    for number, (item, text) in enumerate(zip(value, found, strict=True)):
        template = source[number] if isinstance(source, list | tuple) else None
        if is_missing(item) or missing.makes(text, template, context):
            cause = item if is_missing(item) else next(iter(missing.columns.values()))
            kind = "null" if cause is None else "empty" if isinstance(cause, str) else "NaN"
            raise ValueError(
                f"item {number + 1} of {len(value)} is {kind}{missing}: {shown(item)}; leave it "
                "out, for instance with {{ [A, B, C] | select | list }}, or skip the row with "
                "`where`"
            )
    return found


@dataclass(frozen=True)
class _Missing:
    """The columns without a value that the templates of a list use."""

    columns: Mapping[str, Any]
    known: str
    """The templates, and the values of the row: words in them are meant."""

    @classmethod
    def of(cls, spec: TaskSpec, source: Any, row: Mapping[str, Any]) -> "_Missing":
        """Also columns that the templates use through ``fields``."""
        empty = {column: value for column, value in row.items() if is_missing(value)}
        if not empty:
            return cls({}, "")
        names: set[str] = set()
        sources = list(_strings(source))
        for text in sources:  # which grows
            for name in compile_template(text).names - names:
                names.add(name)
                sources.extend(_strings(spec.fields.get(name)))
        every = "row" in names  # {{ row['odd name'] }} may be any column
        columns = {name: value for name, value in empty.items() if every or name in names}
        return cls(columns, "\n".join([*sources, *_strings(list(row.values()))]))

    def makes(self, text: str, template: Any, context: Mapping[str, Any]) -> bool:
        """Whether a text shows a null as 'None' or 'nan', or nothing but missing values."""
        for value in self.columns.values():
            word = re.compile(rf"(?<!\w){re.escape(str(value))}(?!\w)")
            if not isinstance(value, str) and word.search(text) and not word.search(self.known):
                return True
        if not self.columns or not isinstance(template, str):
            return False
        pieces = compile_template(template).pieces(context)
        values = [piece for is_value, piece in pieces if is_value]
        return bool(values) and all(map(is_missing, values))

    def __str__(self) -> str:
        return f" (column {listing(map(repr, self.columns))})" if self.columns else ""


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
