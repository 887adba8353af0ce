"""Metrics: from scored samples to units, which ``stats`` turns into a value with an interval.

A metric is a function ``(records, rules) -> Units`` (or ``Statistic``, where it is no ratio of
sums); the units say what chance is. Pairs and sets
are scored whole: an incomplete group is counted elsewhere (``n_incomplete``) and is in no group
metric.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vlm_harness.metrics.stats import Statistic, Units
from vlm_harness.plugins import Plugins
from vlm_harness.specs.schemas import GroupRules
from vlm_harness.types import cluster


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

    @property
    def cluster(self) -> str:
        """What the bootstrap draws as one."""
        return cluster(self.sample_id, self.pair, self.set)


Metric = Callable[[Sequence[Record], GroupRules], Units | Statistic]


EVALUATE = "evaluate:"
"""Before the name of a module of the library ``evaluate``."""


class Metrics(Plugins[Metric]):
    """Those listed and installed, and modules of the library ``evaluate`` under ``evaluate:``."""

    def check(self, name: str, where: object = None) -> None:
        if not name.startswith(EVALUATE):
            super().check(name, where)

    def _load(self, name: str) -> Any:
        if not name.startswith(EVALUATE):
            return super()._load(name)
        from vlm_harness.metrics import hf_evaluate

        return hf_evaluate.metric(name)


METRICS = Metrics(
    "metric",
    "vlm_harness.metrics",
    {
        "individual_accuracy": "vlm_harness.metrics.accuracy:individual_accuracy",
        "pair_accuracy": "vlm_harness.metrics.accuracy:pair_accuracy",
        "set_accuracy": "vlm_harness.metrics.accuracy:set_accuracy",
        "relaxed_pair_accuracy": "vlm_harness.metrics.matches:relaxed_pair_accuracy",
        "relaxed_pair_accuracy_sum": "vlm_harness.metrics.matches:relaxed_pair_accuracy_sum",
        "text_to_image_accuracy": "vlm_harness.metrics.matches:text_to_image_accuracy",
        "text_to_image_pair_accuracy": "vlm_harness.metrics.matches:text_to_image_pair_accuracy",
        "group_accuracy": "vlm_harness.metrics.matches:group_accuracy",
        "two_way_accuracy": "vlm_harness.metrics.matches:two_way_accuracy",
        "two_way_pair_accuracy": "vlm_harness.metrics.matches:two_way_pair_accuracy",
        "f1": "vlm_harness.metrics.yes_no:f1",
        "precision": "vlm_harness.metrics.yes_no:precision",
        "recall": "vlm_harness.metrics.yes_no:recall",
        "yes_ratio": "vlm_harness.metrics.yes_no:yes_ratio",
        "mean_pair_cosine": "vlm_harness.metrics.cosine:mean_pair_cosine",
        "whatsup_official_pair_accuracy": "vlm_harness.metrics.whatsup:official_pair_accuracy",
        "whatsup_official_set_accuracy": "vlm_harness.metrics.whatsup:official_set_accuracy",
    },
)


NEED_POSITIVE = frozenset({"f1", "precision", "recall", "yes_ratio"})
"""Metrics that a task can only have where it says which option is ``positive``."""


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
