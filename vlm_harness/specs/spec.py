"""Base classes of the YAML schemas."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from vlm_harness.specs import yamlfile

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=120)]
DESCRIPTIVE = "descriptive"
"""Marks a field that only describes: changing it does not change the identity of a run."""


class Spec(BaseModel):
    """Base of all specs: strict and frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, protected_namespaces=(), allow_inf_nan=False
    )

    @classmethod
    def descriptive(cls) -> frozenset[str]:
        """Names of the descriptive fields."""
        fields = cls.model_fields.items()
        return frozenset(name for name, each in fields if DESCRIPTIVE in each.metadata)

    def essence(self) -> dict[str, Any]:
        """The spec as plain data, without descriptive fields."""
        found = self.model_dump(mode="json", exclude=set(self.descriptive()))
        for name in found:
            value = getattr(self, name)
            if isinstance(value, Spec):
                found[name] = value.essence()
        return found


def keys_of(name: str, field: FieldInfo) -> list[str]:
    """The YAML keys of a field, the preferred one first; the others are old names."""
    alias = field.validation_alias
    return list(map(str, alias.choices)) if isinstance(alias, AliasChoices) else [name]


def misfit(text: str, *at: str) -> PydanticCustomError:
    """An error that involves several keys, reported at one of them."""
    return PydanticCustomError("misfit", "{message}", {"message": text, "at": at})


class NamedSpec(Spec):
    """A spec with a name, by which the registry finds its file."""

    _file: yamlfile.YamlFile | None = None
    _origin: str = "(given in code)"

    def at(self, *location: str | int) -> str:
        """``file:line`` of a value of this spec."""
        if self._file is None:
            return self._origin
        field = type(self).model_fields.get(str(location[0])) if location else None
        if field is not None:
            for key in keys_of(str(location[0]), field):
                if key in self._file.data:
                    return self._file.where((key, *location[1:]))
        return self._file.where(location)

    @model_validator(mode="before")
    @classmethod
    def _no_key_under_two_names(cls, data: Any) -> Any:
        for name, field in cls.model_fields.items() if isinstance(data, dict) else ():
            given = [key for key in keys_of(name, field) if key in data]
            if len(given) > 1:
                new, old = given[:2]
                raise misfit(f"old name of {new!r}, which is also given; keep one of them", old)
        return data

    def _given(self, by: "yamlfile.YamlFile | NamedSpec | str") -> None:
        """Record the origin of the spec: a file, an option, or the spec that it derives from."""
        private = self.__pydantic_private__
        assert private is not None
        if isinstance(by, NamedSpec):
            private["_file"], private["_origin"] = by._file, by._origin
        else:
            private["_origin" if isinstance(by, str) else "_file"] = by

    @property
    def path(self) -> Path | None:
        return self._file.path if self._file else None
