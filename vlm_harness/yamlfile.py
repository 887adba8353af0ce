"""YAML with its line numbers kept, so that an error can name the line that caused it.

Booleans follow YAML 1.2 (``true``/``false`` only): under YAML 1.1 the option ``on`` of What'sUp
and the answers ``yes`` and ``no`` would be read as booleans.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vlm_harness.errors import InputError

Location = tuple[str | int, ...]
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]  # which base it is depends on libyaml
    pass


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in _Base.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


@dataclass(frozen=True)
class YamlFile:
    """Plain data, and for each place in it the file and line it was written at."""

    path: Path
    data: dict[str, Any]
    lines: dict[Location, tuple[Path, int]] = field(default_factory=dict, repr=False)

    def where(self, location: Location = ()) -> str:
        """``file:line`` of the nearest enclosing place that is known."""
        for end in range(len(location), -1, -1):
            if location[:end] in self.lines:
                path, line = self.lines[location[:end]]
                return f"{path}:{line}"
        return str(self.path)


def load(path: Path) -> YamlFile:
    """Read one YAML mapping, with the file that it ``include``s merged below it.

    Mappings merge key by key, anything else replaces.

    Raises:
        InputError: not readable, not YAML, not a mapping, a key twice, an include in a circle.
    """
    return _load(path, ())


def loads(text: str, path: Path) -> YamlFile:
    """Read a mapping from text; ``path`` only names it in messages."""
    lines: dict[Location, tuple[Path, int]] = {}
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise InputError("the file is empty", where=path)
        _index(node, (), path, lines)
        data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        hint = _brace_hint(text, mark.line) if mark else None
        raise InputError(
            f"not valid YAML: {error.problem or error}", where=where, hint=hint
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"not valid YAML: {error}", where=path) from None
    finally:
        loader.dispose()
    if not isinstance(data, dict):
        raise InputError(f"expected a mapping, found {type(data).__name__}", where=f"{path}:1")
    return YamlFile(path, data, lines)


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
    if not isinstance(include, str):
        raise InputError("include takes the path of one file, beside this one", where=where)
    base_path = (path.parent / include).resolve()
    if base_path in (*chain, path.resolve()):
        raise InputError(f"include of {include!r} goes in a circle", where=where)
    if not base_path.is_file():
        raise InputError(f"include: there is no file {base_path}", where=where)
    base = _load(base_path, (*chain, path.resolve()))
    return YamlFile(path, _merge(base.data, file.data), {**base.lines, **file.lines})


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = (
            _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


def _index(
    node: yaml.Node, location: Location, path: Path, lines: dict[Location, tuple[Path, int]]
) -> None:
    lines.setdefault(location, (path, node.start_mark.line + 1))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise InputError(
                    f"the key {key.value!r} stands twice", where=f"{path}:{key.start_mark.line + 1}"
                )
            seen.add(key.value)
            lines[(*location, key.value)] = (path, key.start_mark.line + 1)
            _index(value, (*location, key.value), path, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _index(value, (*location, index), path, lines)


def _brace_hint(text: str, line: int) -> str | None:
    source = text.splitlines()
    if line < len(source) and re.search(r":\s*\{\{", source[line]):
        return 'A value that begins with {{ needs quotes: key: "{{ ... }}"'
    return None
