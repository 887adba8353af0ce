"""How the answers of a run were read: what was not parsed, and what other extractors would read."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vlm_harness.errors import clip
from vlm_harness.logs.rescore import reread
from vlm_harness.logs.results import record, summarise
from vlm_harness.logs.run import Run
from vlm_harness.protocols.extractors import EXTRACTORS, DoesNotApply, extract
from vlm_harness.protocols.phrases import phrases_of
from vlm_harness.specs.extraction import Chain, ExtractorUse, steps
from vlm_harness.specs.schemas import TaskSpec
from vlm_harness.types import Cell, LogLine, ResultRow

_OTHERS: dict[str, Chain] = {
    "letter": "letter",
    "keyword": "keyword",
    "letter, keyword": ["letter", "keyword"],
    "keyword (first)": ExtractorUse(name="keyword", args={"which": "first"}),
    "keyword (last)": ExtractorUse(name="keyword", args={"which": "last"}),
    "yes_no": "yes_no",
    "number": "number",
    "contains": "contains",
}
"""The extractors that a report tries, if they apply to the options."""


@dataclass
class Shape:
    """Unparsed answers that look alike."""

    reason: str
    """``ambiguous``, ``nothing``, ``refusal`` or ``cut_off``."""
    text: str
    """The beginning of the answers, with options and numbers replaced."""
    n: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class CellReport:
    """The reading of the answers of one cell of a run."""

    cell: Cell
    n: int
    reasons: Mapping[str, int]
    shapes: Sequence[Shape]
    """Most frequent first."""
    scores: Mapping[str, Mapping[str, Any]]
    """By extractor: ``n_unparsed``, ``n_different`` and ``value`` of the primary metric."""
    primary_metric: str

    @property
    def n_unparsed(self) -> int:
        return sum(self.reasons.values())


def extraction_report(run: Run, tasks: Sequence[str] = (), n_examples: int = 2) -> list[CellReport]:
    """Read the generated answers of a run again, under its own extractor and others.

    Args:
        tasks: the tasks to report; by default all with generated answers.
        n_examples: number of examples per shape.

    Raises:
        InputError: not a run folder, or the run lacks a task.
    """
    for name in tasks:
        run.task(name)
    lines = run.lines_by_cell(run.cells)
    return [
        _report(run, cell, [line for line in lines[cell] if line.response.text is not None],
                n_examples)
        for cell in run.cells
        if cell.protocol == "generate" and (not tasks or cell.task in tasks)
    ]  # fmt: skip


def _report(run: Run, cell: Cell, lines: Sequence[LogLine], n_examples: int) -> CellReport:
    task = run.spec(cell.task)
    use = task.protocols.generate
    assert use is not None
    own = [reread(line, task) for line in lines]
    shapes: dict[tuple[str, str], Shape] = {}
    reasons: Counter[str] = Counter()
    for line in own:
        if line.status != "unparsed":
            continue
        text = line.response.text or ""
        reason = extract(use.extractors(), text, line.shown)[1].reason
        reasons[reason] += 1
        key = reason, _shape(text, line.shown)
        shape = shapes.setdefault(key, Shape(*key))
        shape.n += 1
        if len(shape.examples) < n_examples:
            shape.examples.append({"sample_id": line.sample_id, "text": text})
    scores = {
        name: {
            "n_unparsed": sum(line.status == "unparsed" for line in found),
            "n_different": sum(
                a.prediction != b.prediction for a, b in zip(own, found, strict=True)
            ),
            "value": _row(run, task, cell, found).primary.value,
        }
        for name, found in _readings(task, lines, own)
    }
    ranked = sorted(shapes.values(), key=lambda shape: -shape.n)
    return CellReport(cell, len(lines), reasons, ranked, scores, task.primary_metric)


def _readings(
    task: TaskSpec, lines: Sequence[LogLine], own: Sequence[LogLine]
) -> Iterator[tuple[str, Sequence[LogLine]]]:
    """The lines as read by the task's extractor, its other readings, and those that apply."""
    use = task.protocols.generate
    assert use is not None
    yield "this run's", own
    options = {tuple(line.shown) for line in lines}
    for name, chain in {**use.readings, **_OTHERS}.items():
        if steps(chain) == use.extractors() or not _applies(chain, options):
            continue
        generate = use.model_copy(update={"extract": chain})
        protocols = task.protocols.model_copy(update={"generate": generate})
        other = task.model_copy(update={"protocols": protocols})
        yield name, [reread(line, other) for line in lines]


def _applies(chain: Chain, option_lists: set[tuple[str, ...]]) -> bool:
    try:
        for options in option_lists:
            for step in steps(chain):
                EXTRACTORS.get(step.name)("", options, **step.args)
    except DoesNotApply:
        return False
    return True


def _row(run: Run, task: TaskSpec, cell: Cell, lines: Sequence[LogLine]) -> ResultRow:
    identity = run.manifest.identity
    records = [record(line, task.positive) for line in lines]
    expected = run.expected[cell]
    return summarise(task, cell, records, expected, limit=identity.limit, seed=identity.seed)


_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def _shape(text: str, options: Sequence[str], n_words: int = 8) -> str:
    """The beginning of a text, with options and numbers replaced."""
    parts, end = [], 0
    text = " ".join(text.split())[:400]
    for mention in phrases_of(tuple(options), (), True).mentions(text):
        parts += [text[end : mention.start], "<option>"]
        end = mention.end
    masked = _NUMBER.sub("<n>", "".join([*parts, text[end:]]))
    words = masked.split()
    return clip(" ".join(words[:n_words]) + (" ..." if len(words) > n_words else ""), 100)


def by_model(reports: Sequence[CellReport]) -> dict[str, tuple[int, int]]:
    """By model: number of unparsed answers, and of answers."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for each in reports:
        found[each.cell.model][0] += each.n_unparsed
        found[each.cell.model][1] += each.n
    return {model: (unparsed, n) for model, (unparsed, n) in found.items()}
