"""A metric without an upper bound, where lower is better."""

import math
from collections.abc import Sequence

from vlm_harness.metrics import Record, Units, metric
from vlm_harness.specs import GroupRules


@metric("words per answer", short="words", unit="number", direction="lower", range=(0, math.inf))
def words_per_answer(records: Sequence[Record], rules: GroupRules) -> Units:
    """Mean number of generated words; samples without text are left out."""
    answered = [record for record in records if record.text is not None]
    counts = [len((record.text or "").split()) for record in answered]
    return Units.of(counts, [record.cluster for record in answered])
