"""Jinja, sandboxed and strict: for the fields of a task, for prompts, for a model's prompt format.

An unknown name is an error. No template can reach attributes that begin with an underscore, call
into Python beyond plain values, make a text or list of more than a million characters or items, or
take longer than ten seconds (in the main thread, where there is SIGALRM).

Filters beside Jinja's own (of which those are missing that draw at random, or only lay out text):

| filter | gives |
|---|---|
| `basename`, `stem` | the last part of a path, without its ending |
| `remove_prefix(p)`, `remove_suffix(s)` | the text without it, where it stands |
| `regex_group(pattern, group=1)` | what the group matched; an error where nothing does |
| `regex_replace(pattern, new)` | the text with every match replaced |
| `regex_findall(pattern)` | the list of matches |
| `caption_with(captions)` | the one caption that holds the word as a word |
| `row_of(table)` | the table's row for the value as key; an error where there is none |
| `index_of(list)` | the position of the value in the list; an error where it is missing |
| `without_letter` | the option without its leading `(a) `, `A. ` |
| `letter_index` | 0 for `(a)`, `A`, `a.`; 1 for `(b)`, ... |
| `from_json` | a value from JSON text |
| `ceil_div(n)` | the whole number of times n goes in, rounded up: row 1, 2 -> 1; 3, 4 -> 2 |
"""

import json
import posixpath
import re
from collections.abc import ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from functools import cache, wraps
from typing import Any

import jinja2
import jinja2.filters
import jinja2.sandbox
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.visitor import NodeTransformer

from vlm_harness.deadline import TimedOut, deadline
from vlm_harness.errors import InputError, suggest
from vlm_harness.extract import strip_label

_MAX_SIZE = 1_000_000
"""Of a text or list that an operation makes, of a number that says how large one shall be."""
_MAX_RANGE = 10_000
_MAX_SECONDS = 10
# `random` would make a run that cannot be repeated; the others take a size and have no use here.
_LEFT_OUT = (
    "random", "center", "indent", "wordwrap", "batch", "slice", "urlize", "xmlattr", "pprint",
)  # fmt: skip


class TemplateError(Exception):
    """A template that cannot be parsed or rendered; the caller adds file and line."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Refuses what would take the machine's memory.

    The value of every operation, filter, call and literal is weighed. What one of them can make of
    values that are light enough is bounded too, once the few are refused beforehand that take a
    size as a number.
    """

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Weighed().visit(source), *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and _too_large(left, 1000) | _too_large(right, 100):
            raise SecurityError("power too large")
        if operator == "*":
            for value, times in ((left, right), (right, left)):
                if isinstance(value, str | bytes | list | tuple) and isinstance(times, int):
                    _allow(len(value) * times, "repetition")
                _refuse(_too_large(value, 10**100), "number")
        if operator == "%" and isinstance(left, str):
            _check_percent(left, right)
        return _weighed(super().call_binop(context, operator, left, right))

    # The names are Jinja's own: a template's keyword arguments must not meet them.
    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        method = getattr(__obj, "__wrapped__", __obj)  # str.format comes wrapped by the sandbox
        if getattr(method, "__name__", "") == "join" and args:
            args = (list(args[0]), *args[1:])  # of a generator, the size is not known
        _check_method(method, args, kwargs)
        return _weighed(super().call(__context, __obj, *args, **kwargs))


class _Weighed(NodeTransformer):
    """Has literals weighed, and what is joined by ``~``; refuses what keeps rendered text."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "join", [], [], None, None, lineno=node.lineno)

    def visit_List(self, node: Any) -> Any:
        self.generic_visit(node)
        if not node.items or getattr(node, "ctx", "load") != "load":
            return node
        return nodes.Filter(node, _WEIGH, [], [], None, None, lineno=node.lineno)

    visit_Tuple = visit_Dict = visit_List

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        return self._refuse(node) if node.recursive else node

    def _refuse(self, node: nodes.Node) -> nodes.Node:
        name = type(node).__name__
        raise jinja2.TemplateSyntaxError(f"{name} blocks are not allowed", node.lineno)

    visit_AssignBlock = visit_Macro = visit_CallBlock = visit_FilterBlock = _refuse


_WEIGH = "weighed"


def _weighed(value: Any) -> Any:
    """The value itself; a SecurityError where it is more than ``_MAX_SIZE`` characters and items,
    counted as often as they would be written.
    """
    if isinstance(value, str | bytes):
        _allow(len(value), "text")
    elif isinstance(value, list | tuple | dict):
        weight = 0
        left: list[Any] = [value]
        while left:
            some = left.pop()
            weight += len(some)
            _allow(weight, "list")
            if isinstance(some, dict):
                left += [x for x in some.values() if isinstance(x, str | list | tuple | dict)]
            elif not isinstance(some, str):
                left += [x for x in some if isinstance(x, str | list | tuple | dict)]
    return value


def _weighing(function: Any) -> Any:
    @wraps(function)  # which keeps what Jinja notes on a filter that wants its context
    def weighing(*args: Any, **kwargs: Any) -> Any:
        return _weighed(function(*args, **kwargs))

    return weighing


def _allow(size: int, what: str) -> None:
    if size > _MAX_SIZE:
        raise SecurityError(f"{what} too long: more than {_MAX_SIZE}")


def _refuse(condition: bool, what: str) -> None:
    if condition:
        raise SecurityError(f"{what} too large")


def _too_large(value: Any, limit: int) -> bool:
    return isinstance(value, int | float) and abs(value) > limit


def _check_percent(text: str, values: Any) -> None:
    widths = re.findall(r"%(?:\([^)]*\))?[-+ #0]*(\d*)(?:\.(\d+))?", text)
    _allow(sum(int(digits) for pair in widths for digits in pair if digits), "width")
    if "*" in text:  # the width is one of the values
        for value in values if isinstance(values, tuple) else (values,):
            _refuse(_too_large(value, _MAX_SIZE), "width")


def _check_method(method: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    if not isinstance(owner, str | bytes | int):
        return
    values = [*args, *kwargs.values()]
    for value in values:
        _refuse(_too_large(value, _MAX_SIZE), "number")
    if name in ("format_map", "encode", "translate") or isinstance(owner, bytes):
        raise SecurityError(f"the method {name!r} is not allowed")
    if isinstance(owner, str) and name == "format":
        _refuse(re.search(r":[^{}]*\{", owner) is not None, "width")
        specs = re.findall(r":([^{}]*)\}", owner)
        _allow(sum(int(n) for spec in specs for n in re.findall(r"\d+", spec)), "width")
    if isinstance(owner, str) and name == "replace" and len(values) > 1:
        _check_replace(owner, values[1])
    if isinstance(owner, str) and name == "join" and values:
        _check_join(owner, values[0])
    if isinstance(owner, str) and name == "expandtabs" and values:
        _allow(len(owner) * int(values[0]), "text")


def _check_replace(text: Any, new: Any) -> None:
    _allow((len(str(text)) + 1) * max(1, len(str(new))), "replacement")


def _check_join(separator: Any, items: Any) -> None:
    if isinstance(items, str | list | tuple):
        total = sum(len(item) if isinstance(item, str) else 1 for item in items)
        _allow(total + len(str(separator)) * len(items), "text")


def _replace(text: Any, old: Any, new: Any, count: int | None = None) -> str:
    _check_replace(text, new)
    return str(text).replace(str(old), str(new), -1 if count is None else count)


@jinja2.pass_eval_context
def _join(context: Any, value: Any, d: Any = "", attribute: Any = None) -> str:
    items = list(value)
    _check_join(d, items)
    return str(jinja2.filters.do_join(context, items, d, attribute))


def _format(text: Any, *values: Any) -> str:
    _check_percent(str(text), values)
    return str(text) % values


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > _MAX_RANGE:
        raise SecurityError(f"range too long: more than {_MAX_RANGE}")
    return found


@cache
def environment() -> jinja2.Environment:
    env = _Sandbox(
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        optimized=False,  # constants would be computed when it is compiled
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals.clear()
    env.globals["range"] = _range
    env.filters.update(FILTERS)
    for name in _LEFT_OUT:
        del env.filters[name]
    env.filters = {name: _weighing(function) for name, function in env.filters.items()}
    env.filters[_WEIGH] = _weighed
    return env


class Template:
    """A compiled template. One ``{{ expression }}`` alone keeps the type of its value."""

    def __init__(self, source: str) -> None:
        self.source = source
        try:
            tree = environment().parse(source)
            self._expression = None
            inner = _lone_expression(source, tree)
            if inner is not None:
                self._expression = environment().compile_expression(inner, undefined_to_none=False)
            else:
                self._template = environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"bad Jinja: {error.message}", error.lineno or 1) from None
        except (RecursionError, MemoryError):
            raise TemplateError("bad Jinja: nested too deeply") from None

    def __call__(self, context: Mapping[str, Any]) -> Any:
        """Render.

        Raises:
            TemplateError: an unknown name, a failing filter, an operation the sandbox refuses.
        """
        try:
            with deadline(_MAX_SECONDS):
                if self._expression is None:
                    return self._render(context)
                return _plain(self._expression(context))
        except TimedOut:
            raise TemplateError(f"it takes longer than {_MAX_SECONDS} seconds") from None
        except jinja2.UndefinedError as error:
            raise TemplateError(_explain(error, context)) from None
        except (jinja2.TemplateError, SecurityError) as error:
            raise TemplateError(str(error)) from None
        except InputError as error:
            raise TemplateError(error.message) from None
        except MemoryError:
            raise TemplateError("it takes more memory than there is") from None
        except (
            ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError,
            re.error,
        ) as error:  # fmt: skip
            raise TemplateError(f"{type(error).__name__}: {error}") from None

    def _render(self, context: Mapping[str, Any]) -> str:
        pieces: list[str] = []
        size = 0
        for piece in self._template.generate(context):
            size += len(piece)
            _allow(size, "text")
            pieces.append(piece)
        return "".join(pieces)


def _plain(value: Any) -> Any:
    """A value as YAML could have held it, so that nothing half-done leaves a template."""
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises with Jinja's own explanation where the name is unknown
        raise TemplateError("the expression has no value: it has an `if` without `else`")
    if isinstance(value, str):
        return str(value)  # some of Jinja's filters give a Markup
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if isinstance(value, list | range | Iterator | KeysView | ValuesView | ItemsView):
        return [_plain(item) for item in value]
    if callable(value):
        raise TemplateError("the expression gives a method instead of a value: call it with ()")
    return value


@cache
def compile_template(source: str) -> Template:
    return Template(source)


def render_tree(value: Any, context: Mapping[str, Any]) -> Any:
    """Render every string inside lists and mappings; other values stay as they are."""
    if isinstance(value, str):
        return compile_template(value)(context)
    if isinstance(value, list | tuple):
        return [render_tree(item, context) for item in value]
    if isinstance(value, dict):
        return {key: render_tree(item, context) for key, item in value.items()}
    return value


def _lone_expression(source: str, tree: nodes.Template) -> str | None:
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    if len(tree.body[0].nodes) != 1 or isinstance(tree.body[0].nodes[0], nodes.TemplateData):
        return None
    match = re.fullmatch(r"\{\{[-+]?(.*?)[-+]?\}\}", source, re.DOTALL)
    return match.group(1) if match else None


def _explain(error: jinja2.UndefinedError, context: Mapping[str, Any]) -> str:
    message = error.message or str(error)
    match = re.match(r"'(\w+)' is undefined", message)
    if not match:
        return message
    known = [name for name in context if isinstance(name, str)]
    near = suggest(match.group(1), known)
    return f"{message}{near or '; there are: ' + ', '.join(known)}"


def _basename(path: str) -> str:
    return posixpath.basename(str(path))


def _stem(path: str) -> str:
    return posixpath.splitext(_basename(path))[0]


def _regex_group(text: str, pattern: str, group: int | str = 1) -> str:
    match = re.search(pattern, str(text))
    if match is None:
        raise InputError(f"regex_group: {pattern!r} matches nothing in {str(text)!r}")
    return str(match.group(group))


def _regex_replace(text: str, pattern: str, new: str) -> str:
    """``re.sub``, which stops where the text becomes too long."""
    text, end, size = str(text), 0, 0
    parts: list[str] = []
    for match in re.finditer(pattern, text):
        parts += [text[end : match.start()], match.expand(new)]
        size += len(parts[-1])
        _allow(size, "text")
        end = match.end()
    return "".join([*parts, text[end:]])


def _regex_findall(text: str, pattern: str) -> list[Any]:
    """``re.findall``, which stops where the list becomes too long."""
    found: list[Any] = []
    size = 0
    for match in re.finditer(pattern, str(text)):
        groups = match.groups("")
        found.append(match.group() if not groups else groups[0] if len(groups) == 1 else groups)
        size += 1 + sum(map(len, groups or (match.group(),)))
        _allow(size, "list")
    return found


def _tojson(value: Any) -> str:
    """Without Jinja's ``indent``, which takes a size, and its escapes for HTML."""
    return json.dumps(value, sort_keys=True)


def _caption_with(word: str, captions: Sequence[str]) -> str:
    """The one caption that holds the word as a word (`on` does not stand in `front`).

    None, or several, are an error: which one is meant is not guessed.
    """
    found = [
        c for c in captions if re.search(rf"(?<!\w){re.escape(str(word))}(?!\w)", str(c), re.I)
    ]
    if len(found) != 1:
        raise InputError(
            f"caption_with: {len(found)} of the captions hold {word!r}: {list(captions)}"
        )
    return str(found[0])


def _index_of(value: Any, items: Sequence[Any]) -> int:
    if value not in items:
        raise InputError(f"index_of: {value!r} is not among {list(items)}")
    return list(items).index(value)


def _row_of(key: Any, table: Mapping[str, Any]) -> Any:
    if str(key) not in table:
        raise InputError(f"row_of: the table has no row {str(key)!r} among its {len(table)}")
    return table[str(key)]


def _letter_index(text: str) -> int:
    match = re.fullmatch(r"\s*\(?([A-Za-z])\)?[.:]?\s*", str(text))
    if match is None:
        raise InputError(f"letter_index: {text!r} is not one letter such as (a), B or c.")
    return ord(match.group(1).lower()) - ord("a")


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
    "without_letter": strip_label,
    "letter_index": _letter_index,
    "from_json": json.loads,
    "replace": _replace,
    "join": _join,
    "format": _format,
    "ceil_div": lambda value, n: -(-int(value) // int(n)),
}
