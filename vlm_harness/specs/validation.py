"""Check a YAML file against its schema; report each violation with file, line and field."""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vlm_harness.errors import InputError, listing, suggest
from vlm_harness.specs import yamlfile
from vlm_harness.specs.schemas import Scalar
from vlm_harness.specs.spec import NamedSpec, Spec, keys_of

S = TypeVar("S", bound=Spec)


def parse(cls: type[S], file: yamlfile.YamlFile) -> S:
    """Check a file against a schema.

    Raises:
        InputError: every violation, with file, line, field, the value found and what is allowed.
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
_KEYS = ("extra_forbidden", "missing")  # one place can have several of these


def _messages(
    cls: type[Spec], file: yamlfile.YamlFile, details: Sequence[ErrorDetails]
) -> list[str]:
    """One message per place, in the order of the file."""
    places: dict[yamlfile.Location, list[ErrorDetails]] = {}
    for detail in details:
        places.setdefault(_location(file.data, detail), []).append(detail)
    messages = []
    for place, found in places.items():
        deeper = any(other[: len(place)] == place and other != place for other in places)
        wrong = [detail for detail in found if detail["type"] in _WANTED]
        others = [detail for detail in found if detail["type"] not in _WANTED]
        # For a union, pydantic reports one error per type. If the value has one of the types,
        # report only the error of that type; if it has none, report all types in one message.
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
        return (
            f"{file.where(place)}: unknown key {'.'.join(map(str, place))!r}"
            f"{_suggestion(str(place[-1]), known)}\n"
            f"  allowed here: {listing(names[0] for names in known)}"
        )
    if detail["type"] == "missing":
        return _at(file, (*place, detail["loc"][-1]), "this key is required")
    if detail["type"] in ("template", "misfit"):
        return _at(file, place, text, detail["ctx"].get("line", 1))
    return _at(file, place, text if "found" in text else f"{text}{_seen(detail.get('input'))}")


def _suggestion(key: str, known: Sequence[Sequence[str]]) -> str:
    """The closest known key; the preferred name where the closest is an old name."""
    near = suggest(key, [names[0] for names in known])
    if near:
        return near
    return next((f"; did you mean {new!r}?" for new, *old in known if suggest(key, old)), "")


def _text(detail: ErrorDetails) -> str:
    text = detail["msg"].removeprefix("Value error, ")
    return text.replace("Input should be", "must be").replace("String should", "must")


def _at(file: yamlfile.YamlFile, place: yamlfile.Location, text: str, line: int = 1) -> str:
    where = file.where(place, line)
    return f"{where}: {'.'.join(map(str, place))}: {text}" if place else f"{where}: {text}"


def _seen(value: Any) -> str:
    if value is None:
        return " (the value is empty)"
    if isinstance(value, Scalar):
        return f" (found {value!r:.80})"
    if isinstance(value, dict | list):
        return " (found a mapping)" if isinstance(value, dict) else " (found a list)"
    return ""


def _location(data: Any, detail: ErrorDetails) -> yamlfile.Location:
    """Where in the file an error is, without the names of union branches that pydantic adds."""
    found: list[str | int] = []
    for step in (*detail["loc"], *detail.get("ctx", {}).get("at", ())):
        items = dict(enumerate(data)) if isinstance(data, list) else data
        if isinstance(items, dict) and step in items:
            data = items[step]
            found.append(step)
    return tuple(found)


def _keys_at(cls: Any, location: tuple[Any, ...]) -> list[list[str]]:
    """The keys that a schema allows at a place, each with its old names."""
    for step in location:
        if isinstance(step, int):
            continue  # an item of a list: the annotation of the list covers it
        cls = next((c for c in _models(cls) if step in c.model_fields), None)
        if cls is None:
            return []
        cls = cls.model_fields[step].annotation
    fields = (each for model in _models(cls) for each in model.model_fields.items())
    return sorted({name: keys_of(name, field) for name, field in fields}.values())


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = get_origin(annotation)
    if origin is None or origin is Literal:
        return []
    return [model for arg in get_args(annotation) for model in _models(arg)]
