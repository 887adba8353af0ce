"""What a metric is: a function from records to units, and a declaration of all that is known of it.

A metric is a function ``(records, rules) -> Units`` (or ``Statistic``, where it is no ratio of
sums), declared with ``@metric(...)``. Nothing is told from its name. The units say what chance is.
Pairs and sets are scored whole: an incomplete group is counted elsewhere (``n_incomplete``) and is
in no group metric.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from vlm_harness.metrics.stats import Statistic, Units
from vlm_harness.specs.schemas import GroupRules
from vlm_harness.types import Status, cluster


@dataclass(frozen=True, slots=True)
class Record:
    """One scored line of the log, as far as metrics need it."""

    sample_id: str
    order_index: int
    """Which of its orders the sample was asked in: groups are scored within one."""
    n_options: int
    correct: bool
    pair: str | None = None
    set: str | None = None
    category: str | None = None
    scores: tuple[float | None, ...] | None = None
    logprobs: bool = False
    """Whether the scores are mean log-probabilities; cosines where not."""
    target: int = 0
    pair_cosine: float | None = None
    prediction: int | None = None
    """The option answered; None where the answer is none (unparsed, tied, failed)."""
    options: Sequence[str] = ()
    text: str | None = None
    """What was generated; None where options were scored."""
    positive: int | None = None
    """The option that is the task's ``positive``; None where the sample does not have it."""
    status: Status = "ok"
    tied: bool = False

    @property
    def cluster(self) -> str:
        """What the bootstrap draws as one."""
        return cluster(self.sample_id, self.pair, self.set)


Compute = Callable[[Sequence[Record], GroupRules], Units | Statistic]
Unit = Literal["share", "cosine", "count", "number"]
"""What a value is: shares are printed in percent, all others as they are."""
Direction = Literal["higher", "lower"]
Need = Literal["positive", "pairs", "sets"]
"""What a task must say for a metric to be defined: which option is ``positive``, ``sample.pair``,
``sample.set``."""
RANGES: dict[Unit, tuple[float, float]] = {
    "share": (0.0, 1.0),
    "cosine": (-1.0, 1.0),
    "count": (0.0, math.inf),
    "number": (-math.inf, math.inf),
}


@dataclass(frozen=True)
class Equal:
    """Another metric that a metric equals, so that it need not be shown or tested beside it."""

    metric: str
    when: Literal["groups are complete", "scores are log-probabilities"] = "groups are complete"


@dataclass(frozen=True)
class Metric:
    """A metric with all that is known of it. Called as its function is."""

    compute: Compute
    title: str
    """Within a sentence: ``pair accuracy``."""
    short: str
    """Over a column, where room is scarce: ``pair``."""
    unit: Unit = "number"
    direction: Direction | None = None
    """Which values are better; None where none are."""
    range: tuple[float, float] = RANGES["number"]
    """Least and greatest value."""
    needs: frozenset[Need] = frozenset()
    reads_text: bool = True
    """Whether it looks at ``Record.text``. False saves the memory of all texts of a run."""
    equals: Equal | None = None
    omits: str | None = None
    """Why complete groups may be left out, where they may."""

    def __call__(self, records: Sequence[Record], rules: GroupRules) -> Units | Statistic:
        units = self.compute(records, rules)
        if isinstance(units, Units) and units.proportion and self.unit != "share":
            return replace(units, proportion=False)
        return units

    @property
    def description(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.compute) or "").partition("\n")[0]

    def best(self, values: Iterable[float]) -> float | None:
        """The best value; None where nothing is better, or there is no value."""
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
    """Declare a metric; parameters are the fields of ``Metric``.

    ``range`` is that of the unit where it is not given: 0 to 1 for shares, -1 to 1 for cosines,
    from 0 for counts, unbounded for numbers.
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
"""An accuracy, or another share of which more is better, that reads no texts."""


def groups(
    records: Sequence[Record], kind: str, size: int
) -> tuple[list[list[Record]], list[list[Record]]]:
    """Whole groups and incomplete ones, of pairs or sets.

    Samples are of one group where they share its key and were asked in the same order.
    """
    members: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        key = getattr(record, kind)
        if key is not None:
            members.setdefault((key, record.order_index), []).append(record)
    whole = [group for group in members.values() if len(group) == size]
    return whole, [group for group in members.values() if len(group) != size]


def guess(group: Sequence[Record]) -> float:
    """Probability that a uniform guess is right on every sample of a group."""
    return math.prod(1 / record.n_options for record in group)
