"""Metrics: from scored samples to units, which ``stats`` turns into a value with an interval.

A metric is a function ``(records, rules) -> Units``. Pairs and sets are scored whole: an
incomplete group is counted elsewhere (``n_incomplete``) and is in no group metric.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlm_harness.plugins import Plugins
from vlm_harness.specs import GroupRules
from vlm_harness.stats import Units


@dataclass(frozen=True, slots=True)
class Record:
    """One scored line of the log, as far as metrics need it."""

    sample_id: str
    order: tuple[int, ...]
    n_options: int
    correct: bool
    pair: str | None = None
    set: str | None = None
    category: str | None = None
    scores: tuple[float, ...] | None = None
    target: int = 0
    pair_cosine: float | None = None

    @property
    def cluster(self) -> str:
        """What the bootstrap draws as one: the set, else the pair, else the sample."""
        return self.set or self.pair or self.sample_id


Metric = Callable[[Sequence[Record], GroupRules], Units]

METRICS: Plugins[Metric] = Plugins(
    "metric",
    "vlm_harness.metrics",
    {
        "individual_accuracy": "vlm_harness.metrics.accuracy:individual_accuracy",
        "pair_accuracy": "vlm_harness.metrics.accuracy:pair_accuracy",
        "set_accuracy": "vlm_harness.metrics.accuracy:set_accuracy",
        "mean_pair_cosine": "vlm_harness.metrics.cosine:mean_pair_cosine",
        "whatsup_official_pair_accuracy": "vlm_harness.metrics.whatsup:official_pair_accuracy",
        "whatsup_official_set_accuracy": "vlm_harness.metrics.whatsup:official_set_accuracy",
    },
)


def groups(
    records: Sequence[Record], kind: str, size: int
) -> tuple[list[list[Record]], list[list[Record]]]:
    """Whole groups and incomplete ones, of pairs or sets.

    Samples are of one group where they share its key and were asked in options of one order.
    """
    members: dict[tuple[str, tuple[int, ...]], list[Record]] = {}
    for record in records:
        key = getattr(record, kind)
        if key is not None:
            members.setdefault((key, record.order), []).append(record)
    whole = [group for group in members.values() if len(group) == size]
    return whole, [group for group in members.values() if len(group) != size]


def chance(name: str, records: Sequence[Record], rules: GroupRules) -> float | None:
    """What a uniform guess at every sample gives; None where the metric is no accuracy."""
    if not records:
        return None
    if name.endswith("individual_accuracy"):
        return sum(1 / record.n_options for record in records) / len(records)
    for kind, size in (("pair", rules.pair.size), ("set", rules.set.size)):
        if name.endswith(f"{kind}_accuracy"):
            whole, _ = groups(records, kind, size)
            guesses = [math.prod(1 / record.n_options for record in group) for group in whole]
            total = len(records) / size if "official" in name else len(whole)
            return sum(guesses) / total if total else None
    return None
