"""What of a run is done, what is left, and the results so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_harness.errors import TooManyErrors
from vlm_harness.logs.lines import Line
from vlm_harness.logs.results import for_metrics, summarise
from vlm_harness.protocols.protocol import answer
from vlm_harness.runs.batches import sort
from vlm_harness.runs.folder import RunFolder
from vlm_harness.runs.interrupts import Interrupts
from vlm_harness.runs.plan import Cell, Item, Plan
from vlm_harness.types import Response, Variant

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
        cells = [(cell, list(cell.items())) for cell in self.planned.cells]
        kept = self.folder.finished_lines(
            [cell.variant for cell, _ in cells], {item.key for _, items in cells for item in items}
        )
        self.folder.check_same_images(kept.values())
        self._rows: dict[Variant, dict[str, Any]] = {}
        self._lines: dict[Variant, dict[Key, Line]] = {}
        self._left: dict[Variant, int] = {}
        for cell, items in cells:
            lines = self._lines[cell.variant] = {}
            left = []
            self.total += len(items)
            for item in items:
                if item.key in kept:
                    self.folder.check_fits(kept[item.key], item)
                    lines[item.key] = for_metrics(kept[item.key], cell.task.spec)
                else:
                    left.append(item)
            self._left[cell.variant] = len(left)
            self.todo.setdefault(cell.variant.model, []).extend(left)
        self.n_done = sum(map(len, self._lines.values()))
        for items in self.todo.values():
            sort(items)
        self.limit = _allowed_errors(self.planned.config.max_errors, self.total)

    def add(self, item: Item, response: Response | None, sums: Mapping[str, str]) -> None:
        """Score and log one response."""
        cell = item.cell
        self._left[cell.variant] -= 1
        if response is not None:
            outcome = answer(
                cell.variant.protocol, response, item.prompt.shown, item.prompt.order, cell.use
            )
            if outcome.status == "error":
                self._count_error(item, outcome.detail)
            else:
                self.failing = None
            line = self.folder.write(item, response, outcome, sums)
            self._lines[cell.variant][item.key] = for_metrics(line, cell.task.spec)
            self.n_new += 1
        self.progress.advance(cell)
        if self._left[cell.variant] == 0:
            self._summarise(cell)
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
        for cell in self.planned.cells:
            lines = self._lines[cell.variant].values()
            if lines and all(line["status"] == "error" for line in lines):
                variant = cell.variant
                raise TooManyErrors(
                    f"every sample failed of {variant.model} on {variant.task} "
                    f"({variant.protocol})\nThe first: {next(iter(lines))['error']}\n"
                    f"The log is in {self.folder.path}"
                )

    def write_results(self) -> list[dict[str, Any]]:
        """All rows, those of unfinished cells too."""
        for cell in self.planned.cells:
            if cell.variant not in self._rows:
                self._summarise(cell)
        self.folder.write_results(self.results())
        return self.results()

    def results(self) -> list[dict[str, Any]]:
        cells = self.planned.cells
        return [self._rows[cell.variant] for cell in cells if cell.variant in self._rows]

    def _summarise(self, cell: Cell) -> None:
        self._rows[cell.variant] = summarise(
            cell.task.spec,
            cell.variant,
            self._lines[cell.variant].values(),
            cell.expected,
            limit=self.planned.config.limit,
            seed=self.planned.config.seed,
        )

    def _count_error(self, item: Item, reason: str | None) -> None:
        self.n_errors += 1
        self.n_failing += 1
        said = f"{item.cell.variant.task}/{item.sample.id}: {reason}"
        if self.first_failing is None:
            self.first_failing = said
        if self.first_error is None:
            self.first_error = said
            self.progress.warn(self.first_error)


def _allowed_errors(text: str, total: int) -> float:
    """``N``, or ``P%`` of all lines; a share allows at least one, also of a small run."""
    if not text.endswith("%"):
        return float(text)
    share = float(text[:-1]) / 100
    return max(1.0, total * share) if share else 0.0
