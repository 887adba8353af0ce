"""Registries of code by name: readers, extractors, protocols, metrics, decodings, backends.

Built-in entries are listed as ``module:attribute`` and imported on first use, so listing them
imports nothing. Other packages add entries through an entry-point group, e.g.
``[project.entry-points."vlm_harness.metrics"]``.
"""

import importlib
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from vlm_harness.errors import InputError, not_found

T = TypeVar("T")


class Plugins(Generic[T]):
    """A lazy mapping from names to one kind of code, with checked lookups."""

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._builtin = dict(builtin)
        self._loaded: dict[str, T] = {}

    @cached_property
    def _installed(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for entry in entry_points(group=self.group):
            if entry.name in self._builtin or entry.name in found:
                other = self._builtin.get(entry.name) or found[entry.name].value
                raise InputError(
                    f"the {self.kind} {entry.name!r} is defined twice: {other} and {entry.value}",
                    where=f"entry points {self.group}",
                )
            found[entry.name] = entry
        return found

    def names(self) -> list[str]:
        return sorted({*self._builtin, *self._installed})

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self._installed

    def check(self, name: str, where: object = None) -> None:
        """Raise an InputError that suggests the closest name if ``name`` is unknown."""
        if name not in self:
            raise not_found(f"unknown {self.kind} {name!r}", name, self.names(), where=where)

    def get(self, name: str, where: object = None) -> T:
        """The entry with this name, imported on first use.

        Raises:
            InputError: the name is unknown, or the entry needs a package that is not installed.
        """
        if name not in self._loaded:
            self.check(name, where)
            try:
                self._loaded[name] = self._load(name)
            except ModuleNotFoundError as error:
                raise InputError(
                    f"the {self.kind} {name!r} needs the package {error.name!r}",
                    where=where,
                    hint=f"Install it with: pip install {error.name}",
                ) from error
        return self._loaded[name]

    def _load(self, name: str) -> Any:
        if name in self._builtin:
            module, attribute = self._builtin[name].split(":")
            return getattr(importlib.import_module(module), attribute)
        entry = self._installed[name]
        try:
            return entry.load()
        except (ImportError, AttributeError) as error:
            if isinstance(error, ModuleNotFoundError) and error.name != entry.module:
                raise  # a dependency of the plugin is missing
            raise InputError(
                f"the {self.kind} {name!r} cannot be loaded: {error}",
                where=f"entry point {self.group} of {entry.dist.name if entry.dist else '?'}",
                hint=f"It is declared as {entry.value!r}.",
            ) from error
