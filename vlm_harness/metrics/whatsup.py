"""The official formula of What'sUp: correct pairs divided by n/2, correct sets by n/4.

The official code (Kamath et al. 2023) divides by the number of samples, whether or not groups are
complete. On a part of the benchmark, an incomplete group therefore counts as incorrect. On the full
benchmark, the metrics equal ``pair_accuracy`` and ``set_accuracy``.
"""

from collections.abc import Sequence

from vlm_harness.metrics.metric import Equal, Record, groups, guess, share
from vlm_harness.metrics.stats import Units
from vlm_harness.specs.schemas import GroupRules


@share("pair accuracy over n/2", short="pair/(n/2)", needs={"pairs"}, equals=Equal("pair_accuracy"))
def official_pair_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Correct pairs divided by n/2, as in the official code of What'sUp."""
    return _over_samples(records, "pair", rules.pair.size)


@share("set accuracy over n/4", short="set/(n/4)", needs={"sets"}, equals=Equal("set_accuracy"))
def official_set_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Correct sets divided by n/4, as in the official code of What'sUp."""
    return _over_samples(records, "set", rules.set.size)


def _over_samples(records: Sequence[Record], kind: str, size: int) -> Units:
    complete, _ = groups(records, kind, size)
    correct = [group for group in complete if all(record.correct for record in group)]
    values = [1.0] * len(correct) + [0.0] * len(records)
    weights = [0.0] * len(correct) + [1 / size] * len(records)
    clusters = [group[0].cluster for group in correct] + [record.cluster for record in records]
    chance = sum(map(guess, complete)) / (len(records) / size) if records else None
    return Units.of(values, clusters, weights, n=len(records), chance=chance)
