"""Metrics as other packages may bring them: declared in full, and not at all."""

from collections.abc import Sequence

from vlm_harness.metrics import Record, Units, metric
from vlm_harness.specs import GroupRules


def options_per_sample(records: Sequence[Record], rules: GroupRules) -> Units:
    """Mean number of options: a plain function, of which nothing is declared."""
    return Units.of([each.n_options for each in records], [each.cluster for each in records])


@metric("official score", short="official", unit="share", direction="higher")
def mmvp_official_score(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of right samples, under a name that says what other metrics are called too."""
    return Units.of([each.correct for each in records], [each.cluster for each in records])


@metric("relaxed cosine sum", short="loss", direction="lower", range=(0, float("inf")))
def relaxed_cosine_sum(records: Sequence[Record], rules: GroupRules) -> Units:
    """Number of wrong samples times 250; no cosine, no sum, and nothing relaxed."""
    wrong = [250 * (not each.correct) for each in records]
    return Units.of(wrong, [each.cluster for each in records])
