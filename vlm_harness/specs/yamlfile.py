"""YAML with line numbers, so that an error can name the line that caused it.

Plain words and numbers follow YAML 1.2. Under YAML 1.1, the option ``on`` of What'sUp and the
answers ``yes`` and ``no`` would be booleans, ``10:30`` the number 630, ``010`` the number 8, and
``1e-5`` a text. Dates stay text.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vlm_harness import paths
from vlm_harness.errors import InputError

Location = tuple[str | int, ...]
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]  # the base depends on whether libyaml is installed
    pass


_TAG = "tag:yaml.org,2002:"
_OWN = ("bool", "int", "float", "timestamp")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.removeprefix(_TAG) not in _OWN]
    for first, resolvers in _Base.yaml_implicit_resolvers.items()
}
for _name, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), list(_first))

_MAX_PLACES = 1_000_000
_INCLUDE_HINT = (
    "Write an include as a path relative to this file (same folder or below), or as the path of a "
    "bundled file, such as tasks/mmvp/mmvp.yaml."
)
SYNONYMS = (("label_corrections", "overlay"),)
"""Top-level keys of the same meaning, new and old: one replaces the other where files merge."""


@dataclass(frozen=True)
class YamlFile:
    """Plain data, with the file and line of each place in it."""

    path: Path
    data: dict[str, Any]
    lines: dict[Location, tuple[Path, int]] = field(default_factory=dict, repr=False)
    texts: dict[Location, int] = field(default_factory=dict, repr=False)
    """For a text: the number of its first line, which can differ from the line of its key."""

    def where(self, location: Location = (), line: int = 1) -> str:
        """``file:line`` of the nearest known enclosing place, or of a line of its text."""
        for end in range(len(location), -1, -1):
            if location[:end] in self.lines:
                path, number = self.lines[location[:end]]
                if line > 1 and end == len(location):
                    number = self.texts.get(location, number) + line - 1
                return f"{path}:{number}"
        return str(self.path)


def load(path: Path) -> YamlFile:
    """Read a YAML mapping and merge it over the files that it ``include``s.

    Mappings are merged key by key; any other value replaces the included one. If several included
    files have the same key, the last file wins.

    Raises:
        InputError: the file cannot be read, is not a YAML mapping, has a duplicate key or a
            circular include.
    """
    return _load(path, ())


def loads(text: str, path: Path) -> YamlFile:
    """Read a mapping from text; ``path`` is used in error messages only."""
    lines: dict[Location, tuple[Path, int]] = {}
    texts: dict[Location, int] = {}
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise InputError("the file is empty", where=path)
        _index(node, (), path, lines, texts, ())
        data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # PyYAML reports a missing end on the line after the last.
        last = max(1, len(text.splitlines()))
        where = f"{path}:{min(mark.line + 1, last)}" if mark else str(path)
        column = f" (column {mark.column + 1})" if mark else ""
        hint = (mark and _brace_hint(text, mark.line)) or "Check the indentation and the quotes."
        raise InputError(
            f"not valid YAML: {error.problem or error}{column}", where=where, hint=hint
        ) from None
    except RecursionError:
        raise InputError("not valid YAML: nested too deeply", where=path) from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise InputError(f"not valid YAML: {error}", where=path) from None
    finally:
        loader.dispose()
    if not isinstance(data, dict):
        raise InputError(f"expected a mapping, found {type(data).__name__}", where=f"{path}:1")
    return YamlFile(path, data, lines, texts)


def scalar(text: str) -> Any:
    """Parse one value as in a file: ``2``, ``0.5``, ``true``; the text itself if it is not YAML."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return text
    finally:
        loader.dispose()


def _load(path: Path, chain: tuple[Path, ...]) -> YamlFile:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot be read: {reason}", where=path) from None
    file = loads(text, path)
    include = file.data.pop("include", None)
    if include is None:
        return file
    where = file.where(("include",))
    names = include if isinstance(include, list) else [include]
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError("include must be the path of a file or a list of paths", where=where)
    files = [_included(path, name, where, chain) for name in names]
    data: dict[str, Any] = {}
    lines: dict[Location, tuple[Path, int]] = {}
    texts: dict[Location, int] = {}
    for part in (*files, file):
        for keys in SYNONYMS:
            if any(key in part.data for key in keys):
                data = {key: value for key, value in data.items() if key not in keys}
        data = _merge(data, part.data)
        lines.update(part.lines)
        texts.update(part.texts)
    return YamlFile(path, data, lines, texts)


def _included(path: Path, name: str, where: str, chain: tuple[Path, ...]) -> YamlFile:
    if paths.escapes(name):
        raise InputError(
            f"include: {name!r} is outside the folder of the file",
            where=where,
            hint=_INCLUDE_HINT,
        )
    target = (path.parent / name).resolve()
    shipped = paths.bundled() / name
    if not target.is_file() and shipped.is_file():
        target = shipped.resolve()
    above = (*chain, path.resolve())
    if target in above:
        circle = " -> ".join(each.name for each in (*above[above.index(target) :], target))
        raise InputError(f"circular include: {circle}", where=where)
    if not target.is_file():
        raise InputError(
            f"include: file not found: {target}",
            where=where,
            hint=_INCLUDE_HINT,
        )
    return _load(target, above)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = (
            _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


def _index(
    node: yaml.Node,
    location: Location,
    path: Path,
    lines: dict[Location, tuple[Path, int]],
    texts: dict[Location, int],
    above: tuple[yaml.Node, ...],
) -> None:
    here = node.start_mark.line + 1
    lines.setdefault(location, (path, here))
    if len(lines) > _MAX_PLACES:  # nested aliases can expand a small file without end
        raise InputError(f"the file has more than {_MAX_PLACES} values", where=path)
    if any(node is parent for parent in above):
        raise InputError("self-referencing alias (*name)", where=f"{path}:{here}")
    if node.tag.removeprefix(_TAG) in ("timestamp", "binary", "set", "omap", "pairs"):
        raise InputError(f"YAML tag {node.tag} is not allowed", where=f"{path}:{here}")
    if isinstance(node, yaml.ScalarNode):
        texts[location] = here + (node.style in ("|", ">"))
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise InputError(
                    f"duplicate key {key.value!r}", where=f"{path}:{key.start_mark.line + 1}"
                )
            seen.add(key.value)
            lines[(*location, key.value)] = (path, key.start_mark.line + 1)
            _index(value, (*location, key.value), path, lines, texts, (*above, node))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _index(value, (*location, index), path, lines, texts, (*above, node))


def _brace_hint(text: str, line: int) -> str | None:
    source = text.splitlines()
    if line < len(source) and re.search(r":\s*\{\{", source[line]):
        return 'Quote a value that begins with {{: key: "{{ ... }}"'
    return None
