"""Names for YAML files: tasks, groups, models, prompts, commands, overlays, tables.

A file says what it is by its first key (``task:``, ``model:``, ``prompt:``, ``commands:``,
``overlay:``, ``table:``). Files whose name begins with an underscore are bases to ``include:``, not
specs.
Every file is read once, shallowly; it is checked against its schema when its spec is asked for.
"""

import fnmatch
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from vlm_harness.errors import InputError, listing, not_found, suggest
from vlm_harness.paths import spec_roots
from vlm_harness.specs import schemas as specs
from vlm_harness.specs import validation as spec_check
from vlm_harness.specs import yamlfile
from vlm_harness.specs.yamlfile import YamlFile

KINDS = ("task", "model", "overlay", "prompt", "table")


class Registry:
    """All specs below the given folders and files.

    Raises:
        InputError: a name defined twice (both files are named), or a file that is not YAML.
    """

    def __init__(self, roots: Iterable[Path]) -> None:
        self.roots = list(roots)
        self._files: dict[str, dict[str, YamlFile]] = {kind: {} for kind in (*KINDS, "command")}
        seen: set[Path] = set()
        for root in self.roots:
            for path in spec_files(root):
                if path.resolve() not in seen:
                    seen.add(path.resolve())
                    self._add(yamlfile.load(path))

    @classmethod
    def standard(cls, include_path: Iterable[str] = ()) -> "Registry":
        """What ``--include-path``, ``$VLM_HARNESS_PATH`` and the bundled folders hold."""
        return cls(spec_roots(tuple(include_path)))

    def _add(self, file: YamlFile) -> None:
        kind = kind_of(file)
        names = [*map(str, file.data["commands"])] if kind == "command" else [file.data[kind]]
        for name in names:
            location = ("commands", name) if kind == "command" else (kind,)
            if name in self._files[kind]:
                other = self._files[kind][name].where(location)
                raise InputError(
                    f"the {kind} {name!r} is defined twice",
                    where=file.where(location),
                    hint=f"It is defined in {other} too; rename one of them.",
                )
            self._files[kind][name] = file

    def names(self, kind: str) -> list[str]:
        return sorted(self._files[kind])

    def file(self, kind: str, name: str, where: object = None) -> YamlFile:
        """The file that defines a name."""
        known = self._files[kind]
        if name not in known:
            raise not_found(
                f"unknown {kind} {name!r}",
                name,
                known,
                where=where,
                hint=f"There are: {{}}\nLooked in: {self.searched()}",
            )
        return known[name]

    def searched(self) -> str:
        return ", ".join(str(root) for root in self.roots)

    def task(self, name: str) -> specs.TaskSpec:
        return spec_check.parse(specs.TaskSpec, self.file("task", name))

    def model(self, name: str) -> specs.ModelSpec:
        """A model. ``./`` and ``../`` before its checkpoint are beside the model's own file."""
        file = self.file("model", name)
        spec = spec_check.parse(specs.ModelSpec, file)
        if spec.checkpoint.startswith(("./", "../")):
            place = (file.path.parent / spec.checkpoint).resolve()
            spec = spec.model_copy(update={"checkpoint": str(place)})
        return spec

    def prompt(self, name: str, where: object = None) -> specs.PromptSpec:
        return spec_check.parse(specs.PromptSpec, self.file("prompt", name, where))

    def overlay(self, name: str, where: object = None) -> specs.OverlaySpec:
        return spec_check.parse(specs.OverlaySpec, self.file("overlay", name, where))

    def table(self, name: str, where: object = None) -> specs.TableSpec:
        return spec_check.parse(specs.TableSpec, self.file("table", name, where))

    def command(self, name: str, where: object = None) -> str:
        file = self.file("command", name, where)
        return spec_check.parse(specs.CommandsSpec, file).commands[name]

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Tasks by group, in the order of their names."""
        found: dict[str, list[str]] = {}
        for name in self.names("task"):
            groups = self._files["task"][name].data.get("groups")
            for group in groups if isinstance(groups, list) else []:
                found.setdefault(str(group), []).append(name)
        for group in found:
            if group in self._files["task"] and found[group] != [group]:
                raise InputError(
                    f"{group!r} is the name of a task and of a group",
                    where=self._files["task"][group].where(("task",)),
                    hint=f"The group holds: {listing(found[group])}; rename one of them.",
                )
        return found

    def select_tasks(self, patterns: Iterable[str]) -> list[str]:
        """Task names for names, groups and globs, each task once, in the order asked.

        Raises:
            InputError: a name or pattern that fits nothing.
        """
        chosen: list[str] = []
        known = self.names("task")
        groups = self.groups  # first of all: they are checked as they are made
        for pattern in patterns:
            if pattern in self._files["task"]:
                chosen.append(pattern)
            elif pattern in groups:
                chosen.extend(groups[pattern])
            elif any(mark in pattern for mark in "*?["):
                found = fnmatch.filter(known, pattern)
                for group in fnmatch.filter(groups, pattern):
                    found.extend(groups[group])
                if not found:
                    raise InputError(
                        f"no task or group fits {pattern!r}", hint=f"There are: {listing(known)}"
                    )
                chosen.extend(found)
            else:
                everything = [*known, *groups]
                raise not_found(
                    f"unknown task {pattern!r}",
                    pattern,
                    everything,
                    hint=f"Tasks: {listing(known)}\nGroups: {listing(groups)}\n"
                    f"Looked in: {self.searched()}",
                )
        return list(dict.fromkeys(chosen))


def kind_of(file: YamlFile) -> str:
    """task, model, prompt, overlay, table or command, by the key that names the spec."""
    # In this order: a task has a `prompt:` section and may name an `overlay:`.
    found = next((kind for kind in KINDS if kind in file.data), None)
    if found is None and isinstance(file.data.get("commands"), dict):
        return "command"
    if found is None:
        keys = list(file.data)
        near = suggest(str(keys[0]), (*KINDS, "commands")) if keys else ""
        raise InputError(
            f"cannot tell what this file defines: it has the keys {listing(map(str, keys))}{near}",
            where=file.where(),
            hint="A spec begins with its kind and name: task:, model:, prompt:, overlay:, table: "
            "or commands:. A base file for include: has a name that begins with an underscore.",
        )
    name = file.data[found]
    if not isinstance(name, str):
        raise InputError(
            f"{found}: the name must be text, found {name!r}", where=file.where((found,))
        )
    return found


def spec_files(root: Path) -> list[Path]:
    """The YAML files of a folder and below it, in order of name, or the one file."""
    if root.is_file():
        return [root]
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix in (".yaml", ".yml")
        and not path.name.startswith("_")
        # .git, .ipynb_checkpoints and the like hold copies
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and not path.is_dir()
    )
