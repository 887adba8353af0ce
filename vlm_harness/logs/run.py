"""A run read from its folder: the entry point for all code that reads the output of runs.

Needs neither torch nor files outside the run folder, except for the data when samples are
requested. Code that needs more than the log, such as loading a task, is imported on first use.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_harness import paths
from vlm_harness.errors import InputError, not_found
from vlm_harness.files import read_json
from vlm_harness.logs.lines import log_path, read_lines, read_manifest
from vlm_harness.logs.schema import Results, parse_results
from vlm_harness.types import AnswerRecord, Cell, ExpectedCell, LogLine, Manifest, RecordedTask

if TYPE_CHECKING:
    import pandas

    from vlm_harness.specs.schemas import GroupSpec, TaskSpec
    from vlm_harness.tasks.task import Task


class Run:
    """A run: its manifest, log lines and results, each read on first use.

    Raises:
        InputError: not a run folder, or a damaged file in it. All methods raise it.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """The results as a table, for notebooks."""
        return self.results._repr_html_()

    @cached_property
    def manifest(self) -> Manifest:
        return read_manifest(self.path)

    @property
    def name(self) -> str:
        return self.manifest.run_id or self.path.resolve().name

    @property
    def finished(self) -> bool:
        return self.manifest.finished is not None

    # --- the grid --------------------------------------------------------------------------------

    @cached_property
    def expected(self) -> Mapping[Cell, ExpectedCell]:
        """The cells of the run in order, with the expected number of lines and groups."""
        return {each.cell: each for each in self.manifest.expected}

    @property
    def cells(self) -> list[Cell]:
        """The cells of the run in order."""
        return list(self.expected)

    @property
    def paired(self) -> list[Cell]:
        """The cells whose samples are paired."""
        return [cell for cell, expected in self.expected.items() if expected.n_pairs]

    # --- answers ---------------------------------------------------------------------------------

    def lines(self, cells: Iterable[Cell] | None = None) -> Iterator[LogLine]:
        """The log lines of some cells, by default all.

        Each log is read once. A missing log has no lines.
        """
        wanted = set(self.cells if cells is None else cells)
        for path in dict.fromkeys(log_path(self.path, cell) for cell in self.cells):
            if path.is_file() and any(log_path(self.path, cell) == path for cell in wanted):
                yield from (line for line in read_lines(path) if line.cell in wanted)

    def lines_by_cell(self, cells: Sequence[Cell]) -> dict[Cell, list[LogLine]]:
        """The log lines by cell, in the order of ``cells``; an empty list if a cell has none."""
        found: dict[Cell, list[LogLine]] = {cell: [] for cell in cells}
        for line in self.lines(cells):
            found[line.cell].append(line)
        return found

    @property
    def results(self) -> Results:
        """The content of ``results.json``: one row per cell.

        Raises:
            InputError: the file is missing, damaged, or belongs to a different run.
        """
        path = self.path / "results.json"
        hint = f"`vlm-harness rescore {self.path}` creates it from the run's log."
        if not path.is_file():
            reason = "" if self.finished else ": the run is not finished"
            raise InputError(f"results.json is missing{reason}", where=self.path, hint=hint)
        try:
            rows = parse_results(read_json(path, hint=hint))
        except ValueError as error:
            raise InputError(f"invalid results: {error}", where=path, hint=hint) from None
        tasks = {cell.task for cell in self.cells}
        grouped = (task for row in rows.groups for task in row.members if task not in row.missing)
        for name in (*(row.task for row in rows), *grouped):
            if name not in tasks:
                raise InputError(
                    f"the results belong to a different run: this run has no task {name!r}",
                    where=path,
                    hint=hint,
                )
        return rows

    @property
    def groups(self) -> "Mapping[str, GroupSpec]":
        """The groups with scores that the manifest records, by name; none in older manifests."""
        if not self.manifest.groups:
            return {}
        from vlm_harness.specs.schemas import GroupSpec
        from vlm_harness.specs.validation import parse
        from vlm_harness.specs.yamlfile import YamlFile

        path = self.path / "manifest.json"
        specs = [parse(GroupSpec, YamlFile(path, each)) for each in self.manifest.groups]
        return {spec.group: spec for spec in specs}

    def to_pandas(self) -> "pandas.DataFrame":
        """One row per log line, with target and prediction as text."""
        import pandas

        rows = [_flat(line) for line in self.lines()]
        return pandas.DataFrame(rows, columns=None if rows else _FLAT)

    # --- the tasks -------------------------------------------------------------------------------

    def task(self, name: str) -> RecordedTask:
        """A task as recorded in the manifest: spec, checksums of its data, label corrections."""
        tasks = self.manifest.identity.tasks
        if name not in tasks:
            raise not_found(f"the run has no task {name!r}", name, tasks, where=self.path)
        return tasks[name]

    def spec(self, task: str) -> "TaskSpec":
        """The spec of a task, as recorded in the manifest."""
        from vlm_harness.specs.schemas import TaskSpec
        from vlm_harness.specs.validation import parse
        from vlm_harness.specs.yamlfile import YamlFile

        recorded = self.task(task).spec.to_dict()
        return parse(TaskSpec, YamlFile(self.path / "manifest.json", recorded))

    def data_root(self, option: str | None) -> Path:
        """``--data-dir``, else the data folder of the run, else the default data folder."""
        recorded = self.manifest.data_dir
        if option is None and recorded is not None and Path(recorded).is_dir():
            return Path(recorded)
        return paths.data_dir(option)

    def load_task(self, task: str, root: Path) -> "Task":
        """Load a task with its samples, for their images and questions.

        Labels are neither corrected nor checked; the log has the labels that were used.
        """
        from vlm_harness.specs.registry import Registry
        from vlm_harness.specs.schemas import GroupRule, GroupRules
        from vlm_harness.tasks.task import load_task

        spec = self.spec(task)
        pair, both = spec.grouping.pair, spec.grouping.set
        grouping = GroupRules(pair=GroupRule(size=pair.size), set=GroupRule(size=both.size))
        include = self.manifest.config.include_path
        registry = Registry.standard(include) if spec.tables else Registry([])
        bare = spec.model_copy(update={"overlay": None, "grouping": grouping})
        return load_task(bare, registry, root)


def run_names(runs: Sequence[Run]) -> dict[Path, str]:
    """Display names of runs; runs with the same name are called by their folder."""
    names = Counter(run.name for run in runs)
    return {r.path: r.name if names[r.name] == 1 else str(r.path) for r in runs}


def check_paired(folder: Path, requested: Sequence[str], paired: Collection[str]) -> None:
    """Raise an InputError if a task requested with ``--task``, or the whole run, has no pairs."""
    if not paired:
        raise InputError("none of this run's tasks has paired samples", where=folder)
    for name in requested:
        if name not in paired:
            raise not_found(
                f"the run has no task {name!r} with paired samples",
                name,
                paired,
                where="--task",
                hint="Tasks with paired samples: {}",
            )


def open_run(path: Run | Path | str) -> Run:
    """Open the run in a folder ``<output-dir>/<run-id>``; a ``Run`` is returned unchanged.

    Raises:
        InputError: not a run folder, or a damaged manifest.
    """
    run = path if isinstance(path, Run) else Run(path)
    _ = run.manifest
    return run


_FLAT = [
    *(each.alias or name for name, each in LogLine.model_fields.items() if name != "response"),
    *("target_text", "prediction_text"),
    *AnswerRecord.model_fields,
]
"""Columns of the table of log lines."""


def _flat(line: LogLine) -> dict[str, Any]:
    """A log line as a table row."""
    found = line.to_dict()
    response = found.pop("response")
    prediction = line.prediction
    return {
        **found,
        "target_text": line.options[line.target],
        "prediction_text": None if prediction is None else line.options[prediction],
        **{name: response.get(name) for name in AnswerRecord.model_fields},
    }
