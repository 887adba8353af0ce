"""Whether a model that is 80% sure is right 80% of the time: probabilities of scored options.

Of options whose answers were scored (``choice``, ``likelihood``) the log has summed
log-probabilities. Their softmax is what the model would answer if it had to give one of these
answers; the probability of the option that it did answer is its confidence.
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
    """Lines of about the same confidence."""

    low: float
    """Exclusive, but for the first bin's (Guo et al. 2017, section 2)."""
    high: float
    n: int
    confidence: float | None
    """Mean confidence; None where no line is in the bin, as all that follows."""
    accuracy: float | None
    ci_low: float | None
    """Of the accuracy: 95%, clustered; None for fewer than two clusters."""
    ci_high: float | None


@dataclass(frozen=True)
class Calibration:
    """Confidence against accuracy, over the lines that have an answer and its probability."""

    n: int
    n_left_out: int
    """Lines without an answer (tied, failed), or without summed log-probabilities that are numbers.
    So ``accuracy`` may be above that of the results, where these count as wrong."""
    accuracy: float
    confidence: float
    """Mean probability of the option answered."""
    gap: float
    """Confidence minus accuracy: above zero the model is too sure of itself."""
    gap_low: float | None
    """Of the gap: 95%, clustered; None for fewer than two clusters."""
    gap_high: float | None
    ece: float
    """Expected calibration error (Naeini et al. 2015; Guo et al. 2017, equation 3)."""
    brier: float
    """Squared distance of all options' probabilities from the right answer (Brier 1950), mean over
    lines: 0 at best, 2 at worst, (k - 1) / k for a uniform guess among k options."""
    bins: Sequence[Bin]


class _Answer(NamedTuple):
    confidence: float
    correct: bool
    brier: float
    cluster: str


def calibration(lines: Iterable[LogLine], bins: int = 10, seed: int = 0) -> Calibration | None:
    """Calibration of the lines of one cell of the grid; None where no line has what it takes.

    Bins are of equal width. The error has no interval: chance alone makes it larger than it is, the
    more so the fewer lines a bin has, and the bootstrap would add as much again. Read it with the
    bins' intervals and with ``gap``, which has no such bias.
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
        # n_b / n * |accuracy_b - confidence_b|, where the bin's n_b falls out
        ece=math.fsum(abs(math.fsum(map(_gap, members))) for members in binned) / n,
        brier=_mean([each.brier for each in answers]),
        bins=[
            _bin(edges[number], edges[number + 1], members, seed)
            for number, members in enumerate(binned)
        ],
    )


def probabilities(sums: Sequence[float]) -> list[float]:
    """Softmax. The largest is taken off first, so that no sum is too negative for ``exp``.

    Totals are exact before they are rounded (``fsum``), here as everywhere in this module: nothing
    depends on the order of options or lines.
    """
    top = max(sums)
    weights = [math.exp(each - top) for each in sums]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _answer(line: LogLine) -> _Answer | None:
    """None where the line is left out. The log has null for what was no finite number."""
    sums, answered = line.response.sum_logprobs, line.prediction
    if not sums or answered is None or line.status != "ok":
        return None
    known = [each for each in sums if each is not None and math.isfinite(each)]
    if len(known) < len(sums):
        return None
    shares, target = probabilities(known), line.target
    return _Answer(
        confidence=shares[answered],
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
    right = [each.correct for each in members]
    units = Units.of(right, [each.cluster for each in members])
    ci_low, ci_high = interval(units, seed=seed)
    confidence = _mean([each.confidence for each in members])
    return Bin(low, high, len(members), confidence, _mean(right), ci_low, ci_high)
