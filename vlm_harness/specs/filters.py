"""Jinja filters for tasks and prompts.

All of Jinja's own filters are available, except ``random`` and those that only lay out text. The
harness adds:

| filter | returns |
|---|---|
| `basename`, `stem` | the last part of a path; the same without its extension |
| `remove_prefix(p)`, `remove_suffix(s)` | the text without that prefix or suffix |
| `regex_group(pattern, group=1)` | the text that the group matched; an error if nothing matches |
| `regex_replace(pattern, new)` | the text with every match replaced |
| `regex_findall(pattern)` | the list of matches |
| `caption_with(captions)` | the one caption that contains the value as a whole word |
| `row_of(table)` | the row of the table with the value as key; an error if it is missing |
| `index_of(list)` | the position of the value in the list; an error if it is missing |
| `without_letter` | the option without its label, such as `(a) `, if all options have one |
| `letter_index` | 0 for `(a)`, `A`, `a.`; 1 for `(b)`, ... |
| `from_json` | the value of a JSON text |
| `ceil_div(n)` | the value divided by n, rounded up; for n = 2: 1, 2 -> 1 and 3, 4 -> 2 |
"""

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import jinja2.filters
import jinja2.sandbox

from vlm_harness.errors import InputError, shown
from vlm_harness.specs.labels import own_labels, strip_label
from vlm_harness.specs.patterns import compile_pattern
from vlm_harness.specs.sandbox import allow, check_join, check_percent, check_replace


def _replace(text: Any, old: Any, new: Any, count: int | None = None) -> str:
    check_replace(text, new)
    return str(text).replace(str(old), str(new), -1 if count is None else count)


@jinja2.pass_eval_context
def _join(context: Any, value: Any, d: Any = "", attribute: Any = None) -> str:
    items = list(value)
    check_join(d, items)
    return str(jinja2.filters.do_join(context, items, d, attribute))


def _format(text: Any, *values: Any) -> str:
    check_percent(str(text), values)
    return str(text) % values


def _basename(path: str) -> str:
    return posixpath.basename(str(path))


def _stem(path: str) -> str:
    return posixpath.splitext(_basename(path))[0]


def _regex_group(text: str, pattern: str, group: int | str = 1) -> str:
    match = compile_pattern(pattern).search(str(text))
    if match is None:
        raise InputError(f"regex_group: {pattern!r} does not match {shown(str(text))}")
    return str(match.group(group))


def _regex_replace(text: str, pattern: str, new: str) -> str:
    """``re.sub`` with a limit on the length of the result."""
    text, end, size = str(text), 0, 0
    parts: list[str] = []
    for match in compile_pattern(pattern).finditer(text):
        parts += [text[end : match.start()], match.expand(new)]
        size += len(parts[-1])
        allow(size, "text")
        end = match.end()
    return "".join([*parts, text[end:]])


def _regex_findall(text: str, pattern: str) -> list[Any]:
    """``re.findall`` with a limit on the size of the result."""
    found: list[Any] = []
    size = 0
    for match in compile_pattern(pattern).finditer(str(text)):
        groups = match.groups("")
        found.append(match.group() if not groups else groups[0] if len(groups) == 1 else groups)
        size += 1 + sum(map(len, groups or (match[0] or "",)))
        allow(size, "list")
    return found


def _tojson(value: Any) -> str:
    """Jinja's ``tojson`` without HTML escapes and without ``indent``, which could be huge."""
    return json.dumps(value, sort_keys=True)


def _caption_with(word: str, captions: Sequence[str]) -> str:
    """The one caption that contains the word as a whole word (`front` does not contain `on`).

    No match, or more than one, is an error; there is no guessing.
    """
    found = [
        c for c in captions if re.search(rf"(?<!\w){re.escape(str(word))}(?!\w)", str(c), re.I)
    ]
    if len(found) != 1:
        raise InputError(
            f"caption_with: {len(found)} captions contain {shown(word)}, expected exactly one: "
            f"{shown(list(captions))}"
        )
    return str(found[0])


def _index_of(value: Any, items: Sequence[Any]) -> int:
    if value not in items:
        raise InputError(f"index_of: {shown(value)} is not in {shown(list(items))}")
    return list(items).index(value)


def _row_of(key: Any, table: Mapping[str, Any]) -> Any:
    if str(key) not in table:
        raise InputError(f"row_of: no row {shown(str(key))} in the table ({len(table)} rows)")
    return table[str(key)]


def _letter_index(text: str) -> int:
    match = re.fullmatch(r"\s*\(?([A-Za-z])\)?[.:]?\s*", str(text))
    if match is None:
        raise InputError(
            f"letter_index: expected one letter such as (a), B or c., got {shown(text)}"
        )
    return ord(match.group(1).lower()) - ord("a")


@jinja2.pass_context
def _without_letter(context: jinja2.runtime.Context, option: str) -> str:
    """The option without its label; among ``options``, only if all of them have one."""
    options = context.get("options")
    if isinstance(options, list) and option in options and not own_labels(options):
        return option
    return strip_label(option)


FILTERS: dict[str, Any] = {
    "basename": _basename,
    "stem": _stem,
    "remove_prefix": lambda text, prefix: str(text).removeprefix(prefix),
    "remove_suffix": lambda text, suffix: str(text).removesuffix(suffix),
    "regex_group": _regex_group,
    "regex_replace": _regex_replace,
    "regex_findall": _regex_findall,
    "tojson": _tojson,
    "caption_with": _caption_with,
    "index_of": _index_of,
    "row_of": _row_of,
    "without_letter": _without_letter,
    "letter_index": _letter_index,
    "from_json": json.loads,
    "replace": _replace,
    "join": _join,
    "format": _format,
    "ceil_div": lambda value, n: -(-int(value) // int(n)),
}
