"""Find YAML files by name: tasks, groups, models, prompts, commands, label corrections, tables.

The kind of a file is given by the key that names it: ``task:``, ``model:``, ``prompt:``,
``commands:``, ``label_corrections:`` (or its old name ``overlay:``) or ``table:``. Files whose name
begins with an underscore are bases for ``include:``, not specs. Each file is parsed once, when the
registry is created, and checked against its schema when its spec is requested.
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
_KEYS = {kind: (kind,) for kind in KINDS} | {"overlay": ("label_corrections", "overlay")}
"""The keys that name a file of each kind, the preferred one first."""
_TITLES = {"overlay": "label corrections"}
"""How messages call a kind, if not by its name."""


class Registry:
    """All specs below the given folders and files.

    Raises:
        InputError: a name is defined twice (the message has both files), or a file is not YAML.
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
        """The specs in ``--include-path``, ``$VLM_HARNESS_PATH`` and the bundled folders."""
        return cls(spec_roots(tuple(include_path)))

    def _add(self, file: YamlFile) -> None:
        kind = kind_of(file)
        if kind == "command":
            names = list(map(str, file.data["commands"]))
        else:
            names = [file.data[_name_key(kind, file)]]
        for name in names:
            if name in self._files[kind]:
                here, other = (_place(kind, name, each) for each in (file, self._files[kind][name]))
                raise InputError(
                    f"{_TITLES.get(kind, kind)} {name!r} is defined twice",
                    where=here,
                    hint=f"It is also defined in {other}; rename one of them.",
                )
            self._files[kind][name] = file

    def names(self, kind: str) -> list[str]:
        return sorted(self._files[kind])

    def file(self, kind: str, name: str, where: object = None) -> YamlFile:
        """The file that defines a name."""
        known = self._files[kind]
        if name not in known:
            raise not_found(
                f"unknown {_TITLES.get(kind, kind)} {name!r}",
                name,
                known,
                where=where,
                hint=f"Available: {{}}\nLooked in: {self.searched()}",
            )
        return known[name]

    def searched(self) -> str:
        return ", ".join(str(root) for root in self.roots)

    def task(self, name: str) -> specs.TaskSpec:
        return spec_check.parse(specs.TaskSpec, self.file("task", name))

    def model(self, name: str) -> specs.ModelSpec:
        """A model. A checkpoint starting with ``./`` or ``../`` is relative to the model file."""
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
        """Tasks by group, sorted by name."""
        found: dict[str, list[str]] = {}
        for name in self.names("task"):
            groups = self._files["task"][name].data.get("groups")
            for group in groups if isinstance(groups, list) else []:
                found.setdefault(str(group), []).append(name)
        for group in found:
            if group in self._files["task"] and found[group] != [group]:
                raise InputError(
                    f"{group!r} is the name of both a task and a group",
                    where=self._files["task"][group].where(("task",)),
                    hint=f"Tasks in the group: {listing(found[group])}. Rename one of them.",
                )
        return found

    def select_tasks(self, patterns: Iterable[str]) -> list[str]:
        """Expand names, groups and globs to task names, in the order given, without duplicates.

        Raises:
            InputError: a name or pattern that matches nothing.
        """
        chosen: list[str] = []
        known = self.names("task")
        groups = self.groups  # computed first, because this also checks them
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
                        f"no task or group matches {pattern!r}", hint=f"Tasks: {listing(known)}"
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
    """task, model, overlay (label corrections), prompt, table or command."""
    # In the order of KINDS: a task has a `prompt:` section and may have `label_corrections:`.
    found = next((kind for kind in KINDS if any(key in file.data for key in _KEYS[kind])), None)
    if found is None and isinstance(file.data.get("commands"), dict):
        return "command"
    if found is None:
        keys = list(file.data)
        kinds = [*(names[0] for names in _KEYS.values()), "commands"]
        near = suggest(str(keys[0]), kinds) if keys else ""
        raise InputError(
            f"cannot tell what this file defines: its keys are {listing(map(str, keys)) or 'none'}"
            f"{near}",
            where=file.where(),
            hint="A spec has one of these keys, with its name: task, model, prompt, "
            "label_corrections, table; or it has the key commands. Start the file name of a base "
            "for include: with an underscore.",
        )
    key = _name_key(found, file)
    name = file.data[key]
    if not isinstance(name, str):
        raise InputError(f"{key}: the name must be text, found {name!r}", where=file.where((key,)))
    return found


def _name_key(kind: str, file: YamlFile) -> str:
    """The key that holds the name of a file of this kind."""
    return next(key for key in _KEYS[kind] if key in file.data)


def _place(kind: str, name: str, file: YamlFile) -> str:
    """``file:line`` of the definition of a name."""
    return file.where(("commands", name) if kind == "command" else (_name_key(kind, file),))


def spec_files(root: Path) -> list[Path]:
    """The YAML files in a folder and its subfolders, sorted by path; or the file itself."""
    if root.is_file():
        return [root]
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix in (".yaml", ".yml")
        and not path.name.startswith("_")
        # hidden folders (.git, .ipynb_checkpoints) hold copies
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and not path.is_dir()
    )
