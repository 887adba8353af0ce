"""Metrics like those of other packages: one without and two with a full declaration."""

from collections.abc import Sequence

from vlm_harness.metrics import Record, Units, metric
from vlm_harness.specs import GroupRules


def options_per_sample(records: Sequence[Record], rules: GroupRules) -> Units:
    """Mean number of options: a plain function without a declaration."""
    return Units.of([each.n_options for each in records], [each.cluster for each in records])


@metric("official score", short="official", unit="share", direction="higher")
def mmvp_official_score(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of correct samples, under a name that resembles those of other metrics."""
    return Units.of([each.correct for each in records], [each.cluster for each in records])


@metric("relaxed cosine sum", short="loss", direction="lower", range=(0, float("inf")))
def relaxed_cosine_sum(records: Sequence[Record], rules: GroupRules) -> Units:
    """Number of incorrect samples times 250; its name is misleading on purpose."""
    incorrect = [250 * (not each.correct) for each in records]
    return Units.of(incorrect, [each.cluster for each in records])
