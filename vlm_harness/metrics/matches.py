"""Pairs judged by their four scores: two images with the right option of either.

Write s_ij for the score of image i with the right option of image j. Of one pass they tell what
images choose (s11 > s12 and s22 > s21), what options choose (s11 > s21 and s22 > s12), and whether
the two images differ in the right direction (the relaxed constraint). A tie is wrong everywhere, so
that a constant model scores zero; so is a pair of which a score is missing.

Pairs are whole ones of two samples with different right options. Where no sample has scores, as
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
    """Mean log-probabilities; cosines where not."""


NONE = Matches(0.0, 0.0, 0.0, 0.0, True)
"""Of a response that failed: it beats nothing."""


# --- the relaxed constraint (paper, section 5.2) -------------------------------------------------


@share(
    "relaxed pair accuracy",
    short="relaxed pair",
    needs={"pairs"},
    omits="ratios need scores above 0",
)
def relaxed_pair_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of pairs that prefer the right match to the crossed one.

        similarities    s11 / (s11 + s12) > s21 / (s21 + s22)
        perplexities    p11 / (p11 + p12) < p21 / (p21 + p22)

    The paper prints ``>`` for perplexities too; but a lower perplexity is the better match, and its
    sign would reward the crossed one. Perplexities are compared by p11 p22 < p12 p21, which is the
    same since they are positive, as sums of logarithms.

    Of cosines that are not all positive (SigLIP's are often negative) the ratio means nothing: such
    pairs are left out, as ``n`` shows, and ``relaxed_pair_accuracy_sum`` is over all.
    """

    def right(s: Matches) -> list[bool]:
        if s.logprobs:
            return [s.s11 + s.s22 > s.s12 + s.s21]
        if min(s[:4]) <= 0:
            return []
        return [s.s11 / (s.s11 + s.s12) > s.s21 / (s.s21 + s.s22)]

    return _over_pairs(records, rules, right, 1 / 2)


@share(
    "relaxed pair accuracy (sum)",
    short="relaxed (sum)",
    needs={"pairs"},
    equals=Equal("relaxed_pair_accuracy", "scores are log-probabilities"),
)
def relaxed_pair_accuracy_sum(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of pairs with s11 + s22 > s12 + s21, defined whatever the signs.

    Of log-probabilities it is the relaxed constraint itself.
    """
    return _over_pairs(records, rules, lambda s: [s.s11 + s.s22 > s.s12 + s.s21], 1 / 2)


# --- the other direction --------------------------------------------------------------------------


@share("text-to-image accuracy", short="text-to-image", needs={"pairs"})
def text_to_image_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of right options that score higher with their own image than with the other."""
    return _over_pairs(records, rules, lambda s: [s.s11 > s.s21, s.s22 > s.s12], 1 / 2)


@share("text-to-image pair accuracy", short="text-to-image pair", needs={"pairs"})
def text_to_image_pair_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of pairs of which both options choose their own image.

    MMVP-VLM's official score (Tong et al. 2024); Winoground's image score (Thrush et al. 2022),
    whose text score is ``pair_accuracy``.
    """
    return _over_pairs(records, rules, lambda s: [s.s11 > s.s21 and s.s22 > s.s12], 1 / 4)


@share("group accuracy", short="group", needs={"pairs"})
def group_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of pairs right in both directions (Winoground's group score).

    Chance is 1/6: of the 24 orders of four scores, 4 put the two right ones above the others.
    """
    return _over_pairs(records, rules, lambda s: [min(s.s11, s.s22) > max(s.s12, s.s21)], 1 / 6)


# --- two-way out of a four-way pass ---------------------------------------------------------------


@share("two-way accuracy", short="two-way", needs={"pairs"})
def two_way_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of samples that prefer their own option to their partner's, whatever others scored.

    What a two-way task finds, where scores do not depend on the other options (``similarity``).
    """
    return _over_pairs(records, rules, lambda s: [s.s11 > s.s12, s.s22 > s.s21], 1 / 2)


@share("two-way pair accuracy", short="two-way pair", needs={"pairs"})
def two_way_pair_accuracy(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of pairs of which both samples do."""
    return _over_pairs(records, rules, lambda s: [s.s11 > s.s12 and s.s22 > s.s21], 1 / 4)


# --- pairs ----------------------------------------------------------------------------------------


def _over_pairs(
    records: Sequence[Record],
    rules: GroupRules,
    judge: Callable[[Matches], Sequence[bool]],
    chance: float,
) -> Units:
    """``judge`` gives one verdict or more a pair, or none where the pair is not to be counted."""
    values: list[bool] = []
    clusters: list[str] = []
    whole, _ = groups(records, "pair", rules.pair.size)
    scored = any(record.scores for record in records)
    for group in whole if scored else []:
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
    # A score that is not a number is null in the log.
    s11, s12, s21, s22 = (math.nan if score is None else score for score in scores)
    if not all(map(math.isfinite, (s11, s12, s21, s22))):
        return NONE
    return Matches(s11, s12, s21, s22, first.logprobs)
