"""Find YAML files by name: tasks, groups, models, prompts, commands, label corrections, tables.

The kind of a file is given by the key that names it: ``task:``, ``model:``, ``prompt:``,
``commands:``, ``label_corrections:`` (or its old name ``overlay:``), ``table:`` or ``group:``.
Files whose name begins with an underscore are bases for ``include:``, not specs. Each file is
parsed once, when the registry is created, and checked against its schema when its spec is
requested.
"""

import fnmatch
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from vlm_harness.errors import InputError, listing, not_found, suggest
from vlm_harness.paths import spec_roots
from vlm_harness.specs import groups as spec_groups
from vlm_harness.specs import schemas as specs
from vlm_harness.specs import validation as spec_check
from vlm_harness.specs import yamlfile
from vlm_harness.specs.yamlfile import YamlFile

KINDS = ("task", "model", "overlay", "prompt", "table", "group")
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

    def group(self, name: str, where: object = None) -> specs.GroupSpec:
        """A group that declares scores. Its members are tasks, and groups that declare scores."""
        if name not in self._files["group"] and name in self._tagged:
            raise InputError(
                f"group {name!r} has no file, so it has no scores of its own",
                where=where,
                hint=f"It is listed by {listing(self._tagged[name])}. A file with `group: {name}` "
                "and `aggregates:` adds scores.",
            )
        spec = spec_check.parse(specs.GroupSpec, self.file("group", name, where))
        return spec_groups.with_members(spec, self.names("task"), self._tagged, self.names("group"))

    def group_specs(self, names: Iterable[str]) -> dict[str, specs.GroupSpec]:
        """Groups that declare scores, and such groups among their members, by name."""
        found: dict[str, specs.GroupSpec] = {}
        waiting = [*names]
        while waiting:
            name = waiting.pop(0)
            if name not in found:
                found[name] = self.group(name)
                waiting += [each for each in found[name].members if each in self._files["group"]]
        return found

    @cached_property
    def _tagged(self) -> dict[str, list[str]]:
        """Tasks by the groups that they list, sorted by name."""
        found: dict[str, list[str]] = {}
        for name in self.names("task"):
            groups = self._files["task"][name].data.get("groups")
            for group in groups if isinstance(groups, list) else []:
                found.setdefault(str(group), []).append(name)
        return found

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Tasks by group: those that list it, or the members that its file names, in order.

        Unknown members are left out here; ``group`` reports them.
        """
        found = dict(self._tagged)
        for group in self.names("group"):
            found[group] = list(dict.fromkeys(self._member_tasks(group, ())))
        for group in found:
            file = self._files["group"].get(group)
            if group in self._files["task"] and (file or found[group] != [group]):
                place = f"The group is defined in {file.where(('group',))}. " if file else ""
                raise InputError(
                    f"{group!r} is the name of both a task and a group",
                    where=self._files["task"][group].where(("task",)),
                    hint=f"{place}Tasks in the group: {listing(found[group])}. Rename one of them.",
                )
        return found

    def _member_tasks(self, name: str, above: tuple[str, ...]) -> Iterator[str]:
        """The tasks of a group or the task of this name, without any check."""
        file = self._files["group"].get(name)
        members = file.data.get("members") if file else None
        if name in self._files["task"]:
            yield name
        elif isinstance(members, list) and members:
            for member in members if name not in above else ():
                yield from self._member_tasks(str(member), (*above, name))
        else:
            yield from self._tagged.get(name, ())

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
                chosen.extend(self._tasks_of(pattern))
            elif any(mark in pattern for mark in "*?["):
                found = fnmatch.filter(known, pattern)
                for group in fnmatch.filter(groups, pattern):
                    found.extend(self._tasks_of(group))
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

    def _tasks_of(self, group: str) -> list[str]:
        """The tasks of a group; the members of a group with a file are checked."""
        if group not in self._files["group"]:
            return self.groups[group]
        return spec_groups.tree(group, self.group_specs([group])).tasks


def kind_of(file: YamlFile) -> str:
    """task, model, overlay (label corrections), prompt, table, group or command."""
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
            "label_corrections, table, group; or it has the key commands. Start the file name of a "
            "base for include: with an underscore.",
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
