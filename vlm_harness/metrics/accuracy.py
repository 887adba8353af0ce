"""Accuracies over samples, pairs and sets (paper, section 3.1; Kamath et al. 2023)."""

from collections.abc import Sequence

from vlm_harness.metrics.metric import Record, groups, guess, share
from vlm_harness.metrics.stats import Units
from vlm_harness.specs.schemas import GroupRules


@share("individual accuracy", short="individual")
def individual_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of right samples; unparsed and failed ones count as wrong."""
    chance = sum(guess([record]) for record in records) / len(records) if records else None
    return Units.of(
        [record.correct for record in records], [r.cluster for r in records], chance=chance
    )


@share("pair accuracy", short="pair", needs={"pairs"})
def pair_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of whole pairs of which every sample is right."""
    return _group_accuracy(records, "pair", rules.pair.size)


@share("set accuracy", short="set", needs={"sets"})
def set_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of whole sets of which every sample is right (four images in What'sUp)."""
    return _group_accuracy(records, "set", rules.set.size)


def _group_accuracy(records: Sequence[Record], kind: str, size: int) -> Units:
    whole, _ = groups(records, kind, size)
    right = [all(record.correct for record in group) for group in whole]
    chance = sum(map(guess, whole)) / len(whole) if whole else None
    return Units.of(right, [group[0].cluster for group in whole], chance=chance)
