"""Checks a YAML file against its schema: each violation with file, line, field, suggestion."""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vlm_harness.errors import InputError, listing, suggest
from vlm_harness.specs import yamlfile
from vlm_harness.specs.schemas import NamedSpec, Scalar, Spec

S = TypeVar("S", bound=Spec)


def parse(cls: type[S], file: yamlfile.YamlFile) -> S:
    """Check a file against a schema.

    Raises:
        InputError: every violation, each with file, line, field, what was seen and what is allowed.
    """
    try:
        spec = cls.model_validate(file.data)
    except ValidationError as error:
        raise InputError("\n".join(_messages(cls, file, error.errors()))) from None
    except RecursionError:
        raise InputError("nested too deeply", where=file.path) from None
    if isinstance(spec, NamedSpec):
        spec._given(file)
    return spec


_WANTED = {
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}
_KEYS = ("extra_forbidden", "missing")  # of which several can be at one place


def _messages(
    cls: type[Spec], file: yamlfile.YamlFile, details: Sequence[ErrorDetails]
) -> list[str]:
    """One message a place, in the order of the file."""
    places: dict[yamlfile.Location, list[ErrorDetails]] = {}
    for detail in details:
        places.setdefault(_location(file.data, detail), []).append(detail)
    messages = []
    for place, found in places.items():
        deeper = any(other[: len(place)] == place and other != place for other in places)
        wrong = [detail for detail in found if detail["type"] in _WANTED]
        others = [detail for detail in found if detail["type"] not in _WANTED]
        # Where a value may be of several types, each that it is not of is an error of its own;
        # that of the type it is of is told, and where it is of none, all are told as one.
        if wrong and not others and not deeper:
            wanted = " or ".join(dict.fromkeys(_WANTED[detail["type"]] for detail in wrong))
            text = f"must be {wanted}{_seen(wrong[0]['input'])}"
            messages.append(_at(file, place, text))
        elif len(others) > 1 and all(detail["type"] not in _KEYS for detail in others):
            text = " or ".join(dict.fromkeys(_text(detail) for detail in others))
            messages.append(_at(file, place, text + _seen(others[0]["input"])))
        else:
            messages.extend(_message(cls, file, place, detail) for detail in others)
    return list(dict.fromkeys(messages))


def _message(
    cls: type[Spec], file: yamlfile.YamlFile, place: yamlfile.Location, detail: ErrorDetails
) -> str:
    text = _text(detail)
    if detail["type"] == "extra_forbidden":
        known = _keys_at(cls, place[:-1])
        near = suggest(str(place[-1]), known)
        return (
            f"{file.where(place)}: unknown key {'.'.join(map(str, place))!r}{near}\n"
            f"  allowed here: {listing(known)}"
        )
    if detail["type"] == "missing":
        return _at(file, (*place, detail["loc"][-1]), "this key is required")
    if detail["type"] in ("template", "misfit"):
        return _at(file, place, text, detail["ctx"].get("line", 1))
    return _at(file, place, text if "found" in text else f"{text}{_seen(detail.get('input'))}")


def _text(detail: ErrorDetails) -> str:
    text = detail["msg"].removeprefix("Value error, ")
    return text.replace("Input should be", "must be").replace("String should", "must")


def _at(file: yamlfile.YamlFile, place: yamlfile.Location, text: str, line: int = 1) -> str:
    where = file.where(place, line)
    return f"{where}: {'.'.join(map(str, place))}: {text}" if place else f"{where}: {text}"


def _seen(value: Any) -> str:
    if value is None:
        return " (found nothing: the value is empty)"
    if isinstance(value, Scalar):
        return f" (found {value!r:.80})"
    if isinstance(value, dict | list):
        return " (found a mapping)" if isinstance(value, dict) else " (found a list)"
    return ""


def _location(data: Any, detail: ErrorDetails) -> yamlfile.Location:
    """Where in the file an error is: a union adds the branch that it tried, which is no place."""
    found: list[str | int] = []
    for step in (*detail["loc"], *detail.get("ctx", {}).get("at", ())):
        items = dict(enumerate(data)) if isinstance(data, list) else data
        if isinstance(items, dict) and step in items:
            data = items[step]
            found.append(step)
    return tuple(found)


def _keys_at(cls: Any, location: tuple[Any, ...]) -> list[str]:
    """The keys that a schema allows at a place, for suggestions."""
    for step in location:
        if isinstance(step, int):
            continue  # an item of a list: what it may be stands in the list's own annotation
        cls = next((c for c in _models(cls) if step in c.model_fields), None)
        if cls is None:
            return []
        cls = cls.model_fields[step].annotation
    return sorted({name for model in _models(cls) for name in model.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = get_origin(annotation)
    if origin is None or origin is Literal:
        return []
    return [model for arg in get_args(annotation) for model in _models(arg)]
