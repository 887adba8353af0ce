"""What'sUp's official formula: right pairs over n/2, right sets over n/4.

The official code (Kamath et al. 2023) divides by the number of samples whatever groups are whole,
so that on a part of the benchmark a group that is broken apart counts as wrong. On the whole
benchmark it equals ``pair_accuracy`` and ``set_accuracy``.
"""

from collections.abc import Sequence

from vlm_harness.metrics.metric import Equal, Record, groups, guess, share
from vlm_harness.metrics.stats import Units
from vlm_harness.specs.schemas import GroupRules


@share("pair accuracy over n/2", short="pair/(n/2)", needs={"pairs"}, equals=Equal("pair_accuracy"))
def official_pair_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Right pairs over n/2, as What'sUp's own code divides."""
    return _over_samples(records, "pair", rules.pair.size)


@share("set accuracy over n/4", short="set/(n/4)", needs={"sets"}, equals=Equal("set_accuracy"))
def official_set_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Right sets over n/4, as What'sUp's own code divides."""
    return _over_samples(records, "set", rules.set.size)


def _over_samples(records: Sequence[Record], kind: str, size: int) -> Units:
    whole, _ = groups(records, kind, size)
    right = [group for group in whole if all(record.correct for record in group)]
    values = [1.0] * len(right) + [0.0] * len(records)
    weights = [0.0] * len(right) + [1 / size] * len(records)
    clusters = [group[0].cluster for group in right] + [record.cluster for record in records]
    chance = sum(map(guess, whole)) / (len(records) / size) if records else None
    return Units.of(values, clusters, weights, n=len(records), chance=chance)
