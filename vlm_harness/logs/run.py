"""A run read back from its folder: where everything begins that looks at what a run wrote.

Needs no torch, and no file but those of the run (and its data, where samples are asked for).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vlm_harness import paths
from vlm_harness.errors import InputError, listing, suggest
from vlm_harness.logs.lines import Line, log_path, read_lines, read_manifest, variant_of
from vlm_harness.specs import yamlfile
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import GroupRule, GroupRules, TaskSpec
from vlm_harness.specs.validation import parse
from vlm_harness.tasks.task import Task, load_task
from vlm_harness.types import Variant


@dataclass(frozen=True)
class RecordedRun:
    """A run's folder and manifest; logs are read when asked for.

    Raises:
        InputError: no run folder, or a manifest that is none.
    """

    folder: Path

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        return read_manifest(self.folder)

    @property
    def name(self) -> str:
        return str(self.manifest.get("run_id") or self.folder.resolve().name)

    @cached_property
    def variants(self) -> list[Variant]:
        """The cells of the run, in its order."""
        return [Variant.of(cell) for cell in self.manifest["expected"]]

    @cached_property
    def paired(self) -> list[Variant]:
        """Those whose samples come in pairs."""
        return [Variant.of(cell) for cell in self.manifest["expected"] if cell.get("n_pairs")]

    def task(self, name: str) -> Mapping[str, Any]:
        """What the manifest has of a task: spec, checksums of its data, overlay."""
        found: Mapping[str, Any] = self.manifest["identity"]["tasks"][name]
        return found

    def spec(self, task: str) -> TaskSpec:
        """A task as the run had it."""
        file = yamlfile.YamlFile(self.folder / "manifest.json", self.task(task)["spec"])
        return parse(TaskSpec, file)

    def lines(self, variants: Iterable[Variant]) -> Iterator[Line]:
        """The lines of some cells; each log is read once, and one that is not there is empty."""
        wanted = set[Variant]()
        logs: dict[Path, None] = {}
        for variant in variants:
            wanted.add(variant)
            logs[log_path(self.folder, variant)] = None
        for path in logs:
            if path.is_file():
                yield from (line for line in read_lines(path) if variant_of(line) in wanted)

    def lines_by_variant(self, variants: Sequence[Variant]) -> dict[Variant, list[Line]]:
        """Those lines by cell, in the order of ``variants``; of a cell without any, none."""
        found: dict[Variant, list[Line]] = {variant: [] for variant in variants}
        for line in self.lines(variants):
            found[variant_of(line)].append(line)
        return found

    def data_root(self, option: str | None) -> Path:
        """``--data-dir``, else where the run found its data, else where they are looked for."""
        recorded = self.manifest.get("data_dir")
        if option is None and recorded is not None and Path(recorded).is_dir():
            return Path(recorded)
        return paths.data_dir(option)

    def read_again(self, task: str, root: Path) -> Task:
        """A task with its samples, for images and questions.

        Labels are neither corrected nor checked: those that count are in the log.
        """
        spec = self.spec(task)
        pair, both = spec.grouping.pair, spec.grouping.set
        grouping = GroupRules(pair=GroupRule(size=pair.size), set=GroupRule(size=both.size))
        include = self.manifest["config"].get("include_path", ())
        registry = Registry.standard(include) if spec.tables else Registry([])
        plain = spec.model_copy(update={"overlay": None, "grouping": grouping})
        return load_task(plain, registry, root)


def check_paired(folder: Path, asked: Sequence[str], paired: Collection[str]) -> None:
    """Refuse tasks, named with ``--task``, that have no pairs, and runs that have none at all."""
    if not paired:
        raise InputError("there are no pairs to show: all samples stand alone", where=folder)
    for name in asked:
        if name not in paired:
            raise InputError(
                f"the run has no task {name!r} whose samples come in pairs{suggest(name, paired)}",
                where="--task",
                hint=f"Of the tasks that it has, these do: {listing(paired)}",
            )
