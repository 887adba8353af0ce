"""A run read from its folder: where everything begins that looks at what a run wrote.

Needs no torch, and no file but those of the run (and its data, where samples are asked for). What
needs more than the log, such as a task with its samples, is imported when it is asked for.
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

    from vlm_harness.specs.schemas import TaskSpec
    from vlm_harness.tasks.task import Task


class Run:
    """A run: its manifest, log lines and results, each read when asked for.

    Raises:
        InputError: no run folder, or a file in it that is damaged; here and in every method.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """In a notebook: the results."""
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
        """The cells of the run, in its order, and how many lines and groups each has."""
        return {each.cell: each for each in self.manifest.expected}

    @property
    def cells(self) -> list[Cell]:
        """The cells of the run, in its order."""
        return list(self.expected)

    @property
    def paired(self) -> list[Cell]:
        """Those whose samples come in pairs."""
        return [cell for cell, expected in self.expected.items() if expected.n_pairs]

    # --- what was answered -----------------------------------------------------------------------

    def lines(self, cells: Iterable[Cell] | None = None) -> Iterator[LogLine]:
        """The lines of some cells, or of all; each log is read once, and one that is not there is
        empty.
        """
        wanted = set(self.cells if cells is None else cells)
        for path in dict.fromkeys(log_path(self.path, cell) for cell in self.cells):
            if path.is_file() and any(log_path(self.path, cell) == path for cell in wanted):
                yield from (line for line in read_lines(path) if line.cell in wanted)

    def lines_by_cell(self, cells: Sequence[Cell]) -> dict[Cell, list[LogLine]]:
        """Those lines by cell, in the order of ``cells``; of a cell without any, none."""
        found: dict[Cell, list[LogLine]] = {cell: [] for cell in cells}
        for line in self.lines(cells):
            found[line.cell].append(line)
        return found

    @property
    def results(self) -> Results:
        """``results.json``, a row per cell.

        Raises:
            InputError: it is not there, it is damaged, or another run's.
        """
        path = self.path / "results.json"
        hint = f"`vlm-harness rescore {self.path}` writes it from the run's log."
        if not path.is_file():
            why = "" if self.finished else ": the run is not finished"
            raise InputError(f"there is no results.json{why}", where=self.path, hint=hint)
        try:
            rows = parse_results(read_json(path, hint=hint))
        except ValueError as error:
            raise InputError(f"not the results of a run: {error}", where=path, hint=hint) from None
        tasks = {cell.task for cell in self.cells}
        for row in rows:
            if row.task not in tasks:
                message = f"the results of another run: this one has no task {row.task!r}"
                raise InputError(message, where=path, hint=hint)
        return rows

    def to_pandas(self) -> "pandas.DataFrame":
        """One row per log line, with the options and the answer as text."""
        import pandas

        rows = [_flat(line) for line in self.lines()]
        return pandas.DataFrame(rows, columns=None if rows else _FLAT)

    # --- the tasks -------------------------------------------------------------------------------

    def task(self, name: str) -> RecordedTask:
        """What the manifest has of a task: spec, checksums of its data, label corrections."""
        tasks = self.manifest.identity.tasks
        if name not in tasks:
            raise not_found(f"the run has no task {name!r}", name, tasks, where=self.path)
        return tasks[name]

    def spec(self, task: str) -> "TaskSpec":
        """A task as the run had it."""
        from vlm_harness.specs.schemas import TaskSpec
        from vlm_harness.specs.validation import parse
        from vlm_harness.specs.yamlfile import YamlFile

        recorded = self.task(task).spec.to_dict()
        return parse(TaskSpec, YamlFile(self.path / "manifest.json", recorded))

    def data_root(self, option: str | None) -> Path:
        """``--data-dir``, else where the run found its data, else where they are looked for."""
        recorded = self.manifest.data_dir
        if option is None and recorded is not None and Path(recorded).is_dir():
            return Path(recorded)
        return paths.data_dir(option)

    def read_again(self, task: str, root: Path) -> "Task":
        """A task with its samples, for images and questions.

        Labels are neither corrected nor checked: those that count are in the log.
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
    """What runs are called: by their folders where several have one name."""
    names = Counter(run.name for run in runs)
    return {r.path: r.name if names[r.name] == 1 else str(r.path) for r in runs}


def check_paired(folder: Path, asked: Sequence[str], paired: Collection[str]) -> None:
    """Refuse tasks, named with ``--task``, that have no pairs, and runs that have none at all."""
    if not paired:
        raise InputError("there are no pairs to show: all samples stand alone", where=folder)
    for name in asked:
        if name not in paired:
            raise not_found(
                f"the run has no task {name!r} whose samples come in pairs",
                name,
                paired,
                where="--task",
                hint="Of the tasks that it has, these do: {}",
            )


def open_run(path: Run | Path | str) -> Run:
    """The run in a folder, ``<output-dir>/<run-id>``; a run that is open already as it is.

    Raises:
        InputError: no run folder, or a damaged manifest.
    """
    run = path if isinstance(path, Run) else Run(path)
    _ = run.manifest
    return run


_FLAT = [
    *(each.alias or name for name, each in LogLine.model_fields.items() if name != "response"),
    *("target_text", "prediction_text"),
    *AnswerRecord.model_fields,
]
"""Columns of a table of lines."""


def _flat(line: LogLine) -> dict[str, Any]:
    """A line as a row of a table."""
    found = line.to_dict()
    response = found.pop("response")
    answered = line.prediction
    return {
        **found,
        "target_text": line.options[line.target],
        "prediction_text": None if answered is None else line.options[answered],
        **{name: response.get(name) for name in AnswerRecord.model_fields},
    }
