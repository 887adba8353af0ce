"""The Jinja sandbox: limits on what a template can do."""

import re
from collections.abc import Mapping
from typing import Any

import jinja2
import jinja2.filters
import jinja2.sandbox
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.visitor import NodeTransformer

_MAX_SIZE = 1_000_000
"""Largest text or list that an operation may build, and largest number accepted as a size."""


class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Rejects operations that would exhaust the memory of the machine.

    The size of the result of every operation, filter, call and literal is checked. Operations that
    take a size as a number (such as a field width) are checked before they run; all others cannot
    build anything huge from operands within the limit.
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
                    allow(len(value) * times, "repetition")
                _refuse(_too_large(value, 10**100), "number")
        if operator == "%" and isinstance(left, str):
            check_percent(left, right)
        return weighed(super().call_binop(context, operator, left, right))

    # Names as in Jinja: they must not collide with the keyword arguments of a template.
    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps str.format
        if getattr(method, "__name__", "") == "join" and args:
            args = (list(args[0]), *args[1:])  # a generator has no known size
        _check_method(method, args, kwargs)
        return weighed(super().call(__context, __obj, *args, **kwargs))


class _Weighed(NodeTransformer):
    """Adds size checks to literals and ``~``; rejects blocks that store rendered text."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "join", [], [], None, None, lineno=node.lineno)

    def visit_List(self, node: Any) -> Any:
        self.generic_visit(node)
        if not node.items or getattr(node, "ctx", "load") != "load":
            return node
        return nodes.Filter(node, WEIGH, [], [], None, None, lineno=node.lineno)

    visit_Tuple = visit_Dict = visit_List

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        return self._refuse(node) if node.recursive else node

    def _refuse(self, node: nodes.Node) -> nodes.Node:
        name = type(node).__name__
        raise jinja2.TemplateSyntaxError(f"{name} blocks are not allowed", node.lineno)

    visit_AssignBlock = visit_Macro = visit_CallBlock = visit_FilterBlock = _refuse


WEIGH = "weighed"


def weighed(value: Any) -> Any:
    """Return the value unchanged if it is within ``_MAX_SIZE`` characters and items.

    An object that occurs several times in the value counts each time.

    Raises:
        SecurityError: the value is larger.
    """
    if isinstance(value, str | bytes):
        allow(len(value), "text")
    elif isinstance(value, list | tuple | dict):
        weight = 0
        remaining: list[Any] = [value]
        while remaining:
            item = remaining.pop()
            weight += len(item)
            allow(weight, "list")
            if isinstance(item, dict):
                remaining += [x for x in item.values() if isinstance(x, str | list | tuple | dict)]
            elif not isinstance(item, str):
                remaining += [x for x in item if isinstance(x, str | list | tuple | dict)]
    return value


def allow(size: int, what: str) -> None:
    if size > _MAX_SIZE:
        raise SecurityError(f"{what} too long: more than {_MAX_SIZE}")


def _refuse(condition: bool, what: str) -> None:
    if condition:
        raise SecurityError(f"{what} too large")


def _too_large(value: Any, limit: int) -> bool:
    return isinstance(value, int | float) and abs(value) > limit


def check_percent(text: str, values: Any) -> None:
    widths = re.findall(r"%(?:\([^)]*\))?[-+ #0]*(\d*)(?:\.(\d+))?", text)
    allow(sum(int(digits) for pair in widths for digits in pair if digits), "width")
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
        allow(sum(int(n) for spec in specs for n in re.findall(r"\d+", spec)), "width")
    if isinstance(owner, str) and name == "replace" and len(values) > 1:
        check_replace(owner, values[1])
    if isinstance(owner, str) and name == "join" and values:
        check_join(owner, values[0])
    if isinstance(owner, str) and name == "expandtabs" and values:
        allow(len(owner) * int(values[0]), "text")


def check_replace(text: Any, new: Any) -> None:
    allow((len(str(text)) + 1) * max(1, len(str(new))), "replacement")


def check_join(separator: Any, items: Any) -> None:
    if isinstance(items, str | list | tuple):
        total = sum(len(item) if isinstance(item, str) else 1 for item in items)
        allow(total + len(str(separator)) * len(items), "text")
