"""Calibration of scored options: is a model that is 80% confident correct 80% of the time?

For protocols that score the options (``choice``, ``likelihood``), the log has the summed
log-probabilities of each option. Their softmax is the model's distribution over these options; the
probability of the predicted option is the model's confidence.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vlm_harness.metrics.stats import Units, difference_interval, interval
from vlm_harness.types import LogLine


@dataclass(frozen=True)
class Bin:
    """Log lines of similar confidence."""

    low: float
    """Exclusive, except in the first bin (Guo et al. 2017, section 2)."""
    high: float
    n: int
    confidence: float | None
    """Mean confidence; None if the bin is empty, like all fields below."""
    accuracy: float | None
    ci_low: float | None
    """95% interval of the accuracy, clustered; None for fewer than two clusters."""
    ci_high: float | None


@dataclass(frozen=True)
class Calibration:
    """Confidence and accuracy, over the lines with a prediction and its probability."""

    n: int
    n_left_out: int
    """Lines without a prediction (tied, failed) or without finite summed log-probabilities. The
    results count these as incorrect, so ``accuracy`` may be higher than in the results."""
    accuracy: float
    confidence: float
    """Mean probability of the predicted option."""
    gap: float
    """Confidence minus accuracy; positive if the model is overconfident."""
    gap_low: float | None
    """95% interval of the gap, clustered; None for fewer than two clusters."""
    gap_high: float | None
    ece: float
    """Expected calibration error (Naeini et al. 2015; Guo et al. 2017, equation 3)."""
    brier: float
    """Brier score (Brier 1950): squared distance between the options' probabilities and the one-hot
    correct answer, mean over lines. Best 0, worst 2, (k - 1) / k for a uniform guess among k
    options."""
    bins: Sequence[Bin]


class _Answer(NamedTuple):
    confidence: float
    correct: bool
    brier: float
    cluster: str


def calibration(lines: Iterable[LogLine], bins: int = 10, seed: int = 0) -> Calibration | None:
    """Calibration of the log lines of one cell; None if no line has a prediction and probability.

    Bins have equal width. The calibration error has no interval: it is biased upwards, the more so
    the fewer lines per bin, and a bootstrap would add the same bias again. Read it together with
    the intervals of the bins and with ``gap``, which does not have this bias.
    """
    found = [_answer(line) for line in lines]
    answers = [each for each in found if each is not None]
    if not answers:
        return None
    n = len(answers)
    binned: list[list[_Answer]] = [[] for _ in range(bins)]
    edges = [number / bins for number in range(bins + 1)]
    for each in answers:
        binned[max(0, bisect_left(edges, each.confidence) - 1)].append(each)
    clusters = [each.cluster for each in answers]
    low, high = difference_interval(Units.of([_gap(each) for each in answers], clusters), seed)
    return Calibration(
        n=n,
        n_left_out=len(found) - n,
        accuracy=_mean([each.correct for each in answers]),
        confidence=_mean([each.confidence for each in answers]),
        gap=_mean([_gap(each) for each in answers]),
        gap_low=low,
        gap_high=high,
        # sum over bins of n_b / n * |accuracy_b - confidence_b|; n_b cancels out
        ece=math.fsum(abs(math.fsum(map(_gap, members))) for members in binned) / n,
        brier=_mean([each.brier for each in answers]),
        bins=[
            _bin(edges[number], edges[number + 1], members, seed)
            for number, members in enumerate(binned)
        ],
    )


def probabilities(sums: Sequence[float]) -> list[float]:
    """Softmax. The maximum is subtracted first, so that ``exp`` does not underflow for all options.

    Sums use ``fsum``, here and in the rest of the module, so that results do not depend on the
    order of options or lines.
    """
    top = max(sums)
    weights = [math.exp(each - top) for each in sums]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _answer(line: LogLine) -> _Answer | None:
    """None if the line is left out. The log has null for values that were not finite."""
    sums, prediction = line.response.sum_logprobs, line.prediction
    if not sums or prediction is None or line.status != "ok":
        return None
    finite = [each for each in sums if each is not None and math.isfinite(each)]
    if len(finite) < len(sums):
        return None
    shares, target = probabilities(finite), line.target
    return _Answer(
        confidence=shares[prediction],
        correct=line.correct,
        brier=math.fsum((share - (i == target)) ** 2 for i, share in enumerate(shares)),
        cluster=line.cluster,
    )


def _gap(answer: _Answer) -> float:
    return answer.confidence - answer.correct


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _bin(low: float, high: float, members: Sequence[_Answer], seed: int) -> Bin:
    if not members:
        return Bin(low, high, 0, None, None, None, None)
    correct = [each.correct for each in members]
    units = Units.of(correct, [each.cluster for each in members])
    ci_low, ci_high = interval(units, seed=seed)
    confidence = _mean([each.confidence for each in members])
    return Bin(low, high, len(members), confidence, _mean(correct), ci_low, ci_high)
