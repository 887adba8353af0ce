"""Sandboxed, strict Jinja for task fields, prompts and the prompt formats of models.

An unknown name is an error. A template cannot access attributes that begin with an underscore, call
Python code other than the methods of plain values, build a text or list of more than a million
characters or items, or run for more than ten seconds (enforced in the main thread, on systems with
SIGALRM).

The filters that the harness adds are in ``filters``.
"""

import re
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from functools import cache, cached_property, wraps
from typing import Any, TypeVar

import jinja2
import jinja2.filters
import jinja2.sandbox
from jinja2 import meta, nodes
from jinja2.environment import TemplateExpression
from jinja2.exceptions import SecurityError

from vlm_harness.deadline import TimedOut, deadline
from vlm_harness.errors import InputError, clip, suggest
from vlm_harness.specs.filters import FILTERS
from vlm_harness.specs.sandbox import WEIGH, Sandbox, allow, weighed

T = TypeVar("T")
_MAX_RANGE = 10_000
_MAX_SECONDS = 10
# `random` would make runs irreproducible; the others take a size and are of no use here.
_LEFT_OUT = (
    "random", "center", "indent", "wordwrap", "batch", "slice", "urlize", "xmlattr", "pprint",
)  # fmt: skip


class TemplateError(Exception):
    """A template cannot be parsed or rendered. The caller adds file and line."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


def _weighing(function: Any) -> Any:
    @wraps(function)  # keeps the attributes by which Jinja passes its context to a filter
    def weighing(*args: Any, **kwargs: Any) -> Any:
        return weighed(function(*args, **kwargs))

    return weighing


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > _MAX_RANGE:
        raise SecurityError(f"range too long: more than {_MAX_RANGE}")
    return found


@cache
def environment() -> jinja2.Environment:
    env = Sandbox(
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        optimized=False,  # otherwise constants are computed, unchecked, at compile time
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
    env.filters[WEIGH] = weighed
    return env


class Template:
    """A compiled template. A lone ``{{ expression }}`` keeps the type of its value."""

    def __init__(self, source: str) -> None:
        self.source = source
        try:
            tree = environment().parse(source)
            self._expression = None
            self._constant = _constant(tree)
            inner = _lone_expression(source, tree)
            if inner is not None:
                self._expression = environment().compile_expression(inner, undefined_to_none=False)
            else:
                self._template = environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"invalid Jinja template: {error.message}", error.lineno or 1
            ) from None
        except (RecursionError, MemoryError):
            raise TemplateError("invalid Jinja template: nested too deeply") from None

    def __call__(self, context: Mapping[str, Any]) -> Any:
        """Render.

        Raises:
            TemplateError: an unknown name, a failing filter, an operation that the sandbox rejects.
        """
        if self._constant is not None:
            return self._constant
        if self._expression is None:
            return _guarded(lambda: self._render(context), context)
        expression = self._expression
        return _guarded(lambda: _plain(expression(context)), context)

    def pieces(self, context: Mapping[str, Any]) -> list[tuple[bool, Any]]:
        """Text and values in order, as (is a value, text or value).

        Empty for a lone expression, for plain text, and if there are statements such as ``if``.

        Raises:
            TemplateError: as rendering does.
        """
        return _guarded(
            lambda: [
                (False, piece) if isinstance(piece, str) else (True, _plain(piece(context)))
                for piece in self._pieces
            ],
            context,
        )

    @cached_property
    def names(self) -> frozenset[str]:
        """The names that the template uses."""
        return frozenset(meta.find_undeclared_variables(environment().parse(self.source)))

    @cached_property
    def _pieces(self) -> list[str | TemplateExpression]:
        pieces: list[str | TemplateExpression] = []
        if self._constant is not None or self._expression is not None:
            return pieces
        tree = environment().parse(self.source)
        for output in tree.body:
            if not isinstance(output, nodes.Output):
                return []
            for node in output.nodes:
                if isinstance(node, nodes.TemplateData):
                    pieces.append(node.data)
                    continue
                # As `compile_expression` does with source code.
                body = [nodes.Assign(nodes.Name("result", "store"), node, lineno=1)]
                code = environment().from_string(nodes.Template(body, lineno=1))
                pieces.append(TemplateExpression(code, undefined_to_none=False))
        return pieces

    def _render(self, context: Mapping[str, Any]) -> str:
        pieces: list[str] = []
        size = 0
        for piece in self._template.generate(context):
            size += len(piece)
            allow(size, "text")
            pieces.append(piece)
        return "".join(pieces)


def _guarded(render: Callable[[], T], context: Mapping[str, Any]) -> T:
    """Render within the limits of the sandbox; whatever fails is a TemplateError."""
    try:
        with deadline(_MAX_SECONDS):
            return render()
    except TimedOut:
        raise TemplateError(f"rendering took longer than {_MAX_SECONDS} seconds") from None
    except jinja2.UndefinedError as error:
        raise TemplateError(_explain(error, context)) from None
    except (jinja2.TemplateError, SecurityError) as error:
        raise TemplateError(clip(error)) from None
    except InputError as error:
        raise TemplateError(error.message) from None
    except MemoryError:
        raise TemplateError("out of memory while rendering") from None
    except (
        ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError,
        re.error,
    ) as error:  # fmt: skip
        raise TemplateError(f"{type(error).__name__}: {clip(error)}") from None


def _plain(value: Any) -> Any:
    """The value as plain data, as YAML could express it: no generators, no Markup."""
    if isinstance(value, jinja2.Undefined):
        str(value)  # if the name is unknown, raises with Jinja's own explanation
        raise TemplateError("the expression has no value: add an `else` to its `if`")
    if isinstance(value, str):
        return str(value)  # some of Jinja's filters return a Markup
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if isinstance(value, list | range | Iterator | KeysView | ValuesView | ItemsView):
        return [_plain(item) for item in value]
    if callable(value):
        raise TemplateError("the expression is a method, not a value: call it with ()")
    return value


@cache
def compile_template(source: str) -> Template:
    return Template(source)


def render_tree(value: Any, context: Mapping[str, Any]) -> Any:
    """Render every string inside lists and mappings; other values are unchanged."""
    if isinstance(value, str):
        return compile_template(value)(context)
    if isinstance(value, list | tuple):
        return [render_tree(item, context) for item in value]
    if isinstance(value, dict):
        return {key: render_tree(item, context) for key, item in value.items()}
    return value


def _constant(tree: nodes.Template) -> str | None:
    """The text of a template without anything to render, else None."""
    parts = [part for node in tree.body if isinstance(node, nodes.Output) for part in node.nodes]
    if len(tree.body) > 1 or not all(isinstance(part, nodes.TemplateData) for part in parts):
        return None
    if tree.body and not isinstance(tree.body[0], nodes.Output):
        return None
    return "".join(part.data for part in parts if isinstance(part, nodes.TemplateData))


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
        return clip(message)
    known = [name for name in context if isinstance(name, str)]
    near = suggest(match.group(1), known)
    return f"{message}{near or '; defined names: ' + ', '.join(known)}"
