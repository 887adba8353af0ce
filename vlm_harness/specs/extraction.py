"""How a task names the extractors that read its answers, and their arguments."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from vlm_harness.errors import listing
from vlm_harness.specs.spec import Name, Spec, misfit


class KeywordArgs(Spec):
    """Arguments of the extractor keyword."""

    ignore_case: bool = True
    synonyms: dict[str, list[str]] = Field({}, description="other words, by option")
    ignore: list[str] = Field(
        [], description="phrases that contain the word of an option but do not name it"
    )
    which: Literal["only", "first", "last"] = Field(
        "only", description="first, last: the option named first or last, whatever is said about it"
    )


class RegexArgs(Spec):
    """Arguments of the extractor regex."""

    pattern: str
    group: int | str = Field(1, description="number or name of the group that names the option")
    ignore_case: bool = True
    which: Literal["only", "first", "last"] = "only"


class ContainsArgs(Spec):
    """Arguments of the extractor contains."""

    exclude: dict[str, list[str]] = Field(
        {}, description="by option, strings whose presence means that the option does not count"
    )


class NoArgs(Spec):
    """An extractor without arguments."""


EXTRACTOR_ARGS: dict[str, type[Spec]] = {
    "keyword": KeywordArgs,
    "letter": NoArgs,
    "yes_no": NoArgs,
    "number": NoArgs,
    "regex": RegexArgs,
    "contains": ContainsArgs,
    "pope_official": NoArgs,
}
"""The arguments of the built-in extractors."""


def _extractor_schema(schema: dict[str, Any]) -> None:
    """Give editors the arguments of each built-in extractor."""
    schema["allOf"] = [
        {
            "if": {"properties": {"name": {"const": name}}, "required": ["name"]},
            "then": {"properties": {"args": arguments.model_json_schema()}},
        }
        for name, arguments in EXTRACTOR_ARGS.items()
    ]


class ExtractorUse(Spec):
    """An extractor with its arguments."""

    model_config = ConfigDict(json_schema_extra=_extractor_schema)

    name: Name
    args: dict[str, Any] = {}
    ambiguous: Literal["stop", "continue"] = Field(
        "stop", description="continue: if the text is ambiguous to this step, try the next one"
    )

    @model_validator(mode="after")
    def _known_arguments(self) -> "ExtractorUse":
        if self.name in EXTRACTOR_ARGS:
            try:
                EXTRACTOR_ARGS[self.name].model_validate(self.args)
            except ValidationError as error:
                first = error.errors()[0]
                allowed = listing(EXTRACTOR_ARGS[self.name].model_fields) or "none"
                at = ".".join(map(str, first["loc"]))
                raise misfit(
                    f"extractor {self.name}: {at}: {first['msg']}; arguments: {allowed}", "args"
                ) from None
        return self

    @model_serializer(mode="wrap")
    def _without_default(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The default of ``ambiguous`` is left out, as before the field existed."""
        found: dict[str, Any] = serialize(self)
        if found.get("ambiguous") == "stop":
            del found["ambiguous"]
        return found


Chain = Name | ExtractorUse | Annotated[list[Name | ExtractorUse], Field(min_length=1)]
"""One extractor, or several that are tried in turn."""


class Step(NamedTuple):
    """One step of a chain of extractors."""

    name: str
    args: dict[str, Any]
    passes_ambiguous: bool = False


def steps(chain: Chain) -> list[Step]:
    """The steps of a chain."""
    return [
        Step(each, {})
        if isinstance(each, str)
        else Step(each.name, dict(each.args), each.ambiguous == "continue")
        for each in (chain if isinstance(chain, list) else [chain])
    ]
