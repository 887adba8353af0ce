"""Declare metrics.

A metric is a function ``(records, rules) -> Units`` (or ``Statistic``, if it is not a ratio of
sums), declared with ``@metric(...)``. Its properties come from the declaration, never from its
name. The units include chance. Group metrics use complete pairs and sets only; ``n_incomplete``
counts the others.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from vlm_harness.metrics.stats import Statistic, Units
from vlm_harness.specs.schemas import GroupRules
from vlm_harness.types import Status, cluster


@dataclass(frozen=True, slots=True)
class Record:
    """The part of a scored log line that metrics use."""

    sample_id: str
    order_index: int
    """Index of the option order. Groups are scored separately for each order."""
    n_options: int
    correct: bool
    pair: str | None = None
    set: str | None = None
    category: str | None = None
    scores: tuple[float | None, ...] | None = None
    logprobs: bool = False
    """True if the scores are mean log-probabilities; otherwise they are cosines."""
    target: int = 0
    pair_cosine: float | None = None
    prediction: int | None = None
    """The chosen option; None if there is no answer (unparsed, tied or failed)."""
    options: Sequence[str] = ()
    text: str | None = None
    """The generated text; None if options were scored."""
    positive: int | None = None
    """Index of the option that the task calls ``positive``; None if the sample lacks it."""
    status: Status = "ok"
    tied: bool = False
    readings: Mapping[str, int | None] = field(default_factory=dict)
    """Predictions under the task's other readings of the text, by name."""
    text_cut: bool = False
    """Whether the text was cut at ``max_new_tokens``."""
    over_limit: bool = False
    """Whether the prompt or a caption is longer than the model's limit."""

    @property
    def cluster(self) -> str:
        """The unit that the bootstrap resamples."""
        return cluster(self.sample_id, self.pair, self.set)


Compute = Callable[[Sequence[Record], GroupRules], Units | Statistic]
Unit = Literal["share", "cosine", "count", "number"]
"""Unit of a value. Shares are printed in percent, all others as they are."""
Direction = Literal["higher", "lower"]
Need = Literal["positive", "pairs", "sets"]
"""What a task must define for a metric: ``positive``, ``sample.pair`` or ``sample.set``."""
RANGES: dict[Unit, tuple[float, float]] = {
    "share": (0.0, 1.0),
    "cosine": (-1.0, 1.0),
    "count": (0.0, math.inf),
    "number": (-math.inf, math.inf),
}


@dataclass(frozen=True)
class Equal:
    """Another metric that a metric equals, so that tables and tests can omit the duplicate."""

    metric: str
    when: Literal["groups are complete", "scores are log-probabilities"] = "groups are complete"


@dataclass(frozen=True)
class Metric:
    """A metric with its declaration. Calling it calls its function."""

    compute: Compute
    title: str
    """Name within a sentence: ``pair accuracy``."""
    short: str
    """Heading of a narrow column: ``pair``."""
    unit: Unit = "number"
    direction: Direction | None = None
    """Whether higher or lower values are better; None if neither."""
    range: tuple[float, float] = RANGES["number"]
    """Minimum and maximum value."""
    needs: frozenset[Need] = frozenset()
    reads_text: bool = True
    """True if it uses ``Record.text``. If False, the texts of a run need not be kept in memory."""
    equals: Equal | None = None
    omits: str | None = None
    """Reason why complete groups can be excluded; None if they cannot."""

    def __call__(self, records: Sequence[Record], rules: GroupRules) -> Units | Statistic:
        units = self.compute(records, rules)
        if isinstance(units, Units) and units.proportion and self.unit != "share":
            return replace(units, proportion=False)
        return units

    @property
    def description(self) -> str:
        """The first line of the docstring of the function."""
        return (inspect.getdoc(self.compute) or "").partition("\n")[0]

    def best(self, values: Iterable[float]) -> float | None:
        """The best value; None if the metric has no direction, or there are no values."""
        if self.direction is None:
            return None
        return (max if self.direction == "higher" else min)(values, default=None)


def metric(
    title: str,
    *,
    short: str | None = None,
    unit: Unit = "number",
    direction: Direction | None = None,
    range: tuple[float, float] | None = None,
    needs: Iterable[Need] = (),
    reads_text: bool = True,
    equals: Equal | None = None,
    omits: str | None = None,
) -> Callable[[Compute], Metric]:
    """Declare a metric. The parameters are the fields of ``Metric``.

    The default of ``range`` depends on the unit: 0 to 1 for shares, -1 to 1 for cosines, 0 to
    infinity for counts, unbounded for numbers.
    """

    def declare(compute: Compute) -> Metric:
        return Metric(
            compute,
            title,
            short or title,
            unit,
            direction,
            range or RANGES[unit],
            frozenset(needs),
            reads_text,
            equals,
            omits,
        )

    return declare


share = partial(metric, unit="share", direction="higher", reads_text=False)
"""Declare an accuracy or another share of which higher is better, and which uses no texts."""


def groups(
    records: Sequence[Record], kind: str, size: int
) -> tuple[list[list[Record]], list[list[Record]]]:
    """Complete groups and incomplete groups of a kind (``pair`` or ``set``).

    The samples of a group have the same key and the same option order.
    """
    members: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        key = getattr(record, kind)
        if key is not None:
            members.setdefault((key, record.order_index), []).append(record)
    complete = [group for group in members.values() if len(group) == size]
    return complete, [group for group in members.values() if len(group) != size]


def guess(group: Sequence[Record]) -> float:
    """Probability that a uniform guess is correct on every sample of a group."""
    return math.prod(1 / record.n_options for record in group)
