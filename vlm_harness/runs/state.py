"""What of a run is done, what is left, and the results so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_harness.errors import TooManyErrors
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
ALL_FAIL = 16
"""Where so many samples of a model fail before one succeeds, the model is to blame."""


class Progress:
    """What the evaluator tells while it works. The default says nothing."""

    def start(self, run: Path, total: int, done: int) -> None: ...

    def loading(self, model: str) -> None: ...

    def advance(self, cell: Cell) -> None: ...

    def warn(self, message: str) -> None: ...


@dataclass
class State:
    """What is done, what is left, and the results so far."""

    planned: Plan
    folder: RunFolder
    progress: Progress
    interrupts: Interrupts
    todo: dict[str, list[Item]] = field(default_factory=dict)
    """What is left for each model, what can be shared lying together."""
    total: int = 0
    n_new: int = 0
    n_errors: int = 0
    first_error: str | None = None
    failing: str | None = None
    """The model of which every sample failed so far, in this call."""
    n_failing: int = 0
    first_failing: str | None = None
    batch_failed: bool = False

    def __post_init__(self) -> None:
        cells = [(planned, list(planned.items())) for planned in self.planned.cells]
        kept = self.folder.finished_lines(
            (planned.cell for planned, _ in cells),
            {item.key for _, items in cells for item in items},
        )
        self.folder.check_same_images(kept.values())
        self._cells = {planned: _CellState(planned) for planned, _ in cells}
        for planned, items in cells:
            of = self._cells[planned]
            left = []
            self.total += len(items)
            for item in items:
                line = kept.get(item.key)
                if line is None:
                    left.append(item)
                else:
                    self.folder.check_fits(line, item)
                    of.add(item.key, line)
            of.left = len(left)
            self.todo.setdefault(planned.cell.model, []).extend(left)
        self.n_done = sum(len(of.records) for of in self._cells.values())
        for items in self.todo.values():
            sort(items)
        self.limit = _allowed_errors(self.planned.config.max_errors, self.total)

    def add(self, item: Item, response: Response | None, checksums: Mapping[str, str]) -> None:
        """Score and log one response."""
        planned = item.planned
        of = self._cells[planned]
        of.left -= 1
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
                self.failing = None
            of.add(item.key, self.folder.write(item, response, outcome, checksums))
            self.n_new += 1
        self.progress.advance(planned.cell)
        if of.left == 0:
            self._summarise(planned)
            self.folder.write_results(self.results())

    def check_errors(self) -> None:
        """Stop where more samples failed than is allowed; asked after a batch is written."""
        if self.failing and self.n_failing >= ALL_FAIL and self.limit < self.total:
            raise TooManyErrors(
                f"stopped: all of the first {self.n_failing} samples of {self.failing} failed\n"
                f"The first: {self.first_failing}\nThe log is in {self.folder.path}; with "
                "--max-errors 100% the others are asked all the same."
            )
        if self.n_errors > self.limit:
            raise TooManyErrors(
                f"stopped: {self.n_errors} samples failed, more than --max-errors "
                f"{self.planned.config.max_errors} allows\nThe first: {self.first_error}\n"
                f"What was finished is kept in {self.folder.path}"
            )

    def log_once(self, text: str) -> None:
        """Of a batch that failed: the first, since every batch may."""
        if not self.batch_failed:
            self.batch_failed = True
            self.folder.log_traceback(f"a batch, of which each sample is asked alone:\n{text}")

    def begin(self, model: str) -> None:
        self.failing, self.n_failing, self.first_failing = model, 0, None

    def check_not_all_failed(self) -> None:
        for planned, of in self._cells.items():
            records = of.records.values()
            if records and all(each.status == "error" for each in records):
                cell = planned.cell
                raise TooManyErrors(
                    f"every sample failed of {cell.model} on {cell.task} "
                    f"({cell.protocol})\nThe first: {of.first_error}\n"
                    f"The log is in {self.folder.path}"
                )

    def write_results(self) -> Results:
        """All rows, those of unfinished cells too."""
        for planned, of in self._cells.items():
            if of.row is None:
                self._summarise(planned)
        self.folder.write_results(self.results())
        return self.results()

    def results(self) -> Results:
        return Results(of.row for of in self._cells.values() if of.row is not None)

    def _summarise(self, planned: PlannedCell) -> None:
        of = self._cells[planned]
        of.row = summarise(
            planned.task.spec,
            planned.cell,
            of.records.values(),
            planned.expected,
            limit=self.planned.config.limit,
            seed=self.planned.config.seed,
        )

    def _count_error(self, item: Item, reason: str | None) -> None:
        self.n_errors += 1
        self.n_failing += 1
        said = f"{item.planned.cell.task}/{item.sample.id}: {reason}"
        if self.first_failing is None:
            self.first_failing = said
        if self.first_error is None:
            self.first_error = said
            self.progress.warn(self.first_error)


@dataclass
class _CellState:
    """What is known of one cell so far."""

    planned: PlannedCell
    records: dict[Key, Record] = field(default_factory=dict)
    left: int = 0
    first_error: str | None = None
    row: ResultRow | None = None

    def __post_init__(self) -> None:
        self._texts = reads_text(self.planned.task.spec)

    def add(self, key: Key, line: LogLine) -> None:
        self.records[key] = record(line, self.planned.task.spec.positive, self._texts)
        if self.first_error is None:
            self.first_error = line.error


def _allowed_errors(text: str, total: int) -> float:
    """``N``, or ``P%`` of all lines; a share allows at least one, also of a small run."""
    if not text.endswith("%"):
        return float(text)
    share = float(text[:-1]) / 100
    return max(1.0, total * share) if share else 0.0
