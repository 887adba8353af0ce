"""Accuracies over samples, pairs and sets (paper, section 3.1; Kamath et al. 2023)."""

from collections.abc import Sequence

from vlm_harness.metrics.metric import Record, groups, guess, share
from vlm_harness.metrics.stats import Units
from vlm_harness.specs.schemas import GroupRules


@share("individual accuracy", short="individual")
def individual_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of correct samples; unparsed and failed ones count as incorrect."""
    chance = sum(guess([record]) for record in records) / len(records) if records else None
    return Units.of(
        [record.correct for record in records], [r.cluster for r in records], chance=chance
    )


@share("pair accuracy", short="pair", needs={"pairs"})
def pair_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of complete pairs whose samples are all correct."""
    return _group_accuracy(records, "pair", rules.pair.size)


@share("set accuracy", short="set", needs={"sets"})
def set_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of complete sets whose samples are all correct (four images in What'sUp)."""
    return _group_accuracy(records, "set", rules.set.size)


def _group_accuracy(records: Sequence[Record], kind: str, size: int) -> Units:
    complete, _ = groups(records, kind, size)
    correct = [all(record.correct for record in group) for group in complete]
    chance = sum(map(guess, complete)) / len(complete) if complete else None
    return Units.of(correct, [group[0].cluster for group in complete], chance=chance)
