"""State of a run in progress: finished lines, remaining items, and results so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_harness.errors import TooManyErrors
from vlm_harness.logs.group_row import GroupRow
from vlm_harness.logs.groups import Scored, group_rows
from vlm_harness.logs.results import reads_text, record, summarise
from vlm_harness.logs.schema import Results
from vlm_harness.metrics import Record
from vlm_harness.protocols.protocol import answer
from vlm_harness.runs.batches import sort
from vlm_harness.runs.folder import RunFolder
from vlm_harness.runs.interrupts import Interrupts
from vlm_harness.runs.plan import Item, Plan, PlannedCell
from vlm_harness.types import Cell, LogLine, Response, ResultRow

Key = tuple[Any, ...]
MAX_INITIAL_FAILURES = 16
"""Stop if this many samples of a model fail before the first success: the model is broken."""


class Progress:
    """Callbacks for the progress of a run; override any of them. By default nothing is reported."""

    def start(self, run: Path, total: int, done: int) -> None: ...

    def loading(self, model: str) -> None: ...

    def advance(self, cell: Cell) -> None: ...

    def warn(self, message: str) -> None: ...


@dataclass
class RunState:
    """Finished lines, remaining items, and results so far."""

    planned: Plan
    folder: RunFolder
    progress: Progress
    interrupts: Interrupts
    todo: dict[str, list[Item]] = field(default_factory=dict)
    """Remaining items by model, sorted so that items that can share computation are adjacent."""
    total: int = 0
    n_new: int = 0
    n_errors: int = 0
    first_error: str | None = None
    failing_model: str | None = None
    """The current model, as long as all of its samples failed in this call; else None."""
    n_model_errors: int = 0
    first_model_error: str | None = None
    batch_error_logged: bool = False
    _groups: list[GroupRow] = field(default_factory=list)
    """Scores of groups, once all rows are written."""

    def __post_init__(self) -> None:
        cells = [(planned, list(planned.items())) for planned in self.planned.cells]
        # Resume: lines of an earlier call are reused, failed samples are retried.
        finished = self.folder.finished_lines(
            (planned.cell for planned, _ in cells),
            {item.key for _, items in cells for item in items},
        )
        self.folder.check_same_images(finished.values())
        self._cells = {planned: _CellProgress(planned) for planned, _ in cells}
        for planned, items in cells:
            progress = self._cells[planned]
            remaining = []
            self.total += len(items)
            for item in items:
                line = finished.get(item.key)
                if line is None:
                    remaining.append(item)
                else:
                    self.folder.check_line(line, item)
                    progress.add(item.key, line)
            progress.n_remaining = len(remaining)
            self.todo.setdefault(planned.cell.model, []).extend(remaining)
        self.n_done = sum(len(each.records) for each in self._cells.values())
        for items in self.todo.values():
            sort(items)
        self.max_errors = _max_errors(self.planned.config.max_errors, self.total)

    def add(self, item: Item, response: Response | None, checksums: Mapping[str, str]) -> None:
        """Score and log one response."""
        planned = item.planned
        cell = self._cells[planned]
        cell.n_remaining -= 1
        if response is not None:
            outcome = answer(
                planned.cell.protocol,
                response,
                item.prompt.shown,
                item.prompt.order,
                planned.use,
            )
            if outcome.status == "error":
                self._count_error(item, outcome.detail)
            else:
                self.failing_model = None
            cell.add(item.key, self.folder.write(item, response, outcome, checksums))
            self.n_new += 1
        self.progress.advance(planned.cell)
        if cell.n_remaining == 0:
            self._summarise(planned)
            self.folder.write_results(self.results())

    def check_errors(self) -> None:
        """Stop the run if too many samples failed. Call after a batch is written.

        Raises:
            TooManyErrors: more samples failed than ``--max-errors`` allows, or the first
                ``MAX_INITIAL_FAILURES`` samples of a model all failed.
        """
        all_failed = self.failing_model and self.n_model_errors >= MAX_INITIAL_FAILURES
        if all_failed and self.max_errors < self.total:
            raise TooManyErrors(
                f"stopped: the first {self.n_model_errors} samples of {self.failing_model} all "
                f"failed\nFirst error: {self.first_model_error}\n"
                f"{self._where_to_look}\n"
                "To evaluate the remaining samples anyway, use --max-errors 100%."
            )
        if self.n_errors > self.max_errors:
            raise TooManyErrors(
                f"stopped: {self.n_errors} samples failed, more than --max-errors "
                f"{self.planned.config.max_errors} allows\nFirst error: {self.first_error}\n"
                f"Finished samples are saved in {self.folder.path}\n"
                "Rerun the same command to resume the run and retry the failed samples."
            )

    def log_once(self, text: str) -> None:
        """Log the traceback of a failed batch, but only the first, since every batch may fail."""
        if not self.batch_error_logged:
            self.batch_error_logged = True
            self.folder.log_traceback(f"batch failed; retrying its samples one by one:\n{text}")

    def start_model(self, model: str) -> None:
        self.failing_model, self.n_model_errors, self.first_model_error = model, 0, None

    def check_not_all_failed(self) -> None:
        for planned, progress in self._cells.items():
            records = progress.records.values()
            if records and all(each.status == "error" for each in records):
                cell = planned.cell
                raise TooManyErrors(
                    f"every sample failed: {cell.model} on {cell.task} ({cell.protocol})\n"
                    f"First error: {progress.first_error}\n{self._where_to_look}"
                )

    @property
    def _where_to_look(self) -> str:
        return f"Run folder: {self.folder.path} (see samples/*.jsonl)"

    def write_results(self) -> Results:
        """Write all rows, including those of unfinished cells."""
        for planned, progress in self._cells.items():
            if progress.row is None:
                self._summarise(planned)
        scored = [
            Scored(each.row, planned.task.spec, each.records.values())
            for planned, each in self._cells.items()
            if each.row is not None
        ]
        self._groups = group_rows(self.planned.groups, scored)
        self.folder.write_results(self.results())
        return self.results()

    def results(self) -> Results:
        rows = (progress.row for progress in self._cells.values())
        return Results((row for row in rows if row is not None), self._groups)

    def _summarise(self, planned: PlannedCell) -> None:
        progress = self._cells[planned]
        progress.row = summarise(
            planned.task.spec,
            planned.cell,
            progress.records.values(),
            planned.expected,
            limit=self.planned.config.limit,
            seed=self.planned.config.seed,
        )

    def _count_error(self, item: Item, reason: str | None) -> None:
        self.n_errors += 1
        self.n_model_errors += 1
        message = f"{item.planned.cell.task}/{item.sample.id}: {reason}"
        if self.first_model_error is None:
            self.first_model_error = message
        if self.first_error is None:
            self.first_error = message
            self.progress.warn(self.first_error)


@dataclass
class _CellProgress:
    """The lines of one cell so far, and its results once it is finished."""

    planned: PlannedCell
    records: dict[Key, Record] = field(default_factory=dict)
    n_remaining: int = 0
    first_error: str | None = None
    row: ResultRow | None = None

    def __post_init__(self) -> None:
        self._texts = reads_text(self.planned.task.spec)

    def add(self, key: Key, line: LogLine) -> None:
        self.records[key] = record(
            line, self.planned.task.spec.positive, self._texts, self.planned.task.spec
        )
        if self.first_error is None:
            self.first_error = line.error


def _max_errors(text: str, total: int) -> float:
    """``--max-errors``: ``N``, or ``P%`` of all lines. A percentage above 0 allows at least one."""
    if not text.endswith("%"):
        return float(text)
    share = float(text[:-1]) / 100
    return max(1.0, total * share) if share else 0.0
