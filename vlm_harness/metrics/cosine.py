"""Pair cosine similarity of a dual encoder (paper, Table 1, last row)."""

from collections.abc import Sequence

from vlm_harness.metrics.metric import Record, groups, metric
from vlm_harness.metrics.stats import Units
from vlm_harness.specs.schemas import GroupRules


@metric("mean pair cosine", short="pair cosine", unit="cosine", needs={"pairs"}, reads_text=False)
def mean_pair_cosine(records: Sequence[Record], rules: GroupRules) -> Units:
    """Mean cosine similarity of the two image embeddings of complete pairs, one value per pair."""
    complete, _ = groups(records, "pair", rules.pair.size)
    known = [
        (group[0].pair_cosine, group[0].cluster)
        for group in complete
        if group[0].pair_cosine is not None
    ]
    values, clusters = [cosine for cosine, _ in known], [cluster for _, cluster in known]
    return Units.of(values, clusters, proportion=False)
