"""Metrics over the four scores of a pair: each image with the correct option of each.

Let s_ij be the score of image i with the correct option of image j. From one pass, the four scores
give which option each image prefers (s11 > s12 and s22 > s21), which image each option prefers
(s11 > s21 and s22 > s12), and whether the difference between the two images has the correct sign
(the relaxed constraint). Ties are incorrect, so that a constant model scores zero. Pairs with a
missing score are incorrect, too.

Only complete pairs of two samples with different correct options count. If no sample has scores, as
under ``generate``, the metrics are undefined.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from vlm_harness.metrics.metric import Equal, Record, groups, share
from vlm_harness.metrics.stats import Units
from vlm_harness.specs.schemas import GroupRules


class Matches(NamedTuple):
    s11: float
    s12: float
    s21: float
    s22: float
    logprobs: bool
    """True if the scores are mean log-probabilities; otherwise they are cosines."""


NONE = Matches(0.0, 0.0, 0.0, 0.0, True)
"""For failed responses: all comparisons are false."""


# --- the relaxed constraint (paper, section 5.2) -------------------------------------------------


@share(
    "relaxed pair accuracy",
    short="relaxed pair",
    needs={"pairs"},
    omits="ratios need scores above 0",
)
def relaxed_pair_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of pairs that prefer the correct captions to the mismatched ones.

        similarities    s11 / (s11 + s12) > s21 / (s21 + s22)
        perplexities    p11 / (p11 + p12) < p21 / (p21 + p22)

    The paper prints ``>`` for perplexities, too. But a lower perplexity is a better match, so that
    ``>`` would reward the mismatched captions. For positive perplexities, the condition is
    equivalent to p11 p22 < p12 p21, which is computed as a comparison of sums of logarithms.

    If the cosines are not all positive (those of SigLIP are often negative), the ratio is
    meaningless. Such pairs are excluded, as ``n`` shows; ``relaxed_pair_accuracy_sum`` includes
    them.
    """

    def judge(s: Matches) -> list[bool]:
        if s.logprobs:
            return [s.s11 + s.s22 > s.s12 + s.s21]
        if min(s[:4]) <= 0:
            return []
        return [s.s11 / (s.s11 + s.s12) > s.s21 / (s.s21 + s.s22)]

    return _over_pairs(records, rules, judge, 1 / 2)


@share(
    "relaxed pair accuracy (sum)",
    short="relaxed (sum)",
    needs={"pairs"},
    equals=Equal("relaxed_pair_accuracy", "scores are log-probabilities"),
)
def relaxed_pair_accuracy_sum(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of pairs with s11 + s22 > s12 + s21, which is defined for scores of any sign.

    For log-probabilities, this is the relaxed constraint.
    """
    return _over_pairs(records, rules, lambda s: [s.s11 + s.s22 > s.s12 + s.s21], 1 / 2)


# --- text to image --------------------------------------------------------------------------------


@share("text-to-image accuracy", short="text-to-image", needs={"pairs"})
def text_to_image_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of correct options that score higher with their own image than with the other one."""
    return _over_pairs(records, rules, lambda s: [s.s11 > s.s21, s.s22 > s.s12], 1 / 2)


@share("text-to-image pair accuracy", short="text-to-image pair", needs={"pairs"})
def text_to_image_pair_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of pairs whose correct options both score higher with their own image.

    MMVP-VLM's official score (Tong et al. 2024); Winoground's image score (Thrush et al. 2022),
    whose text score is ``pair_accuracy``.
    """
    return _over_pairs(records, rules, lambda s: [s.s11 > s.s21 and s.s22 > s.s12], 1 / 4)


@share("group accuracy", short="group", needs={"pairs"})
def group_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of pairs that are correct in both directions (group score of Winoground).

    Chance is 1/6: in 4 of the 24 orders of four scores, the two correct ones are the highest.
    """
    return _over_pairs(records, rules, lambda s: [min(s.s11, s.s22) > max(s.s12, s.s21)], 1 / 6)


# --- two-way accuracy from a four-way pass --------------------------------------------------------


@share("two-way accuracy", short="two-way", needs={"pairs"})
def two_way_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of samples that prefer their own option to their partner's, ignoring other options.

    If scores do not depend on the other options (``similarity``), this is the accuracy of the
    two-way task.
    """
    return _over_pairs(records, rules, lambda s: [s.s11 > s.s12, s.s22 > s.s21], 1 / 2)


@share("two-way pair accuracy", short="two-way pair", needs={"pairs"})
def two_way_pair_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of pairs whose samples both prefer their own option to their partner's."""
    return _over_pairs(records, rules, lambda s: [s.s11 > s.s12 and s.s22 > s.s21], 1 / 4)


# --- pairs ----------------------------------------------------------------------------------------


def _over_pairs(
    records: Sequence[Record],
    rules: GroupRules,
    judge: Callable[[Matches], Sequence[bool]],
    chance: float,
) -> Units:
    """``judge`` returns one or more verdicts per pair, or none to exclude the pair."""
    values: list[bool] = []
    clusters: list[str] = []
    complete, _ = groups(records, "pair", rules.pair.size)
    scored = any(record.scores for record in records)
    for group in complete if scored else []:
        if len(group) == 2 and group[0].target != group[1].target:
            verdicts = judge(_matches(*group))
            values.extend(verdicts)
            clusters.extend([group[0].cluster] * len(verdicts))
    return Units.of(values, clusters, chance=chance if values else None)


def _matches(first: Record, second: Record) -> Matches:
    if first.scores is None or second.scores is None:
        return NONE
    a, b = first.target, second.target
    scores = (first.scores[a], first.scores[b], second.scores[a], second.scores[b])
    # The log has null for a score that is not finite.
    s11, s12, s21, s22 = (math.nan if score is None else score for score in scores)
    if not all(map(math.isfinite, (s11, s12, s21, s22))):
        return NONE
    return Matches(s11, s12, s21, s22, first.logprobs)
