"""Questions with a positive answer: F1, precision, recall and the share of yes (POPE's metrics).

The option that a task calls ``positive`` is one class, all others are the other. Samples without
that option are in none of these metrics.

An answer that is none (unparsed, tied, failed) is wrong, here as everywhere: a miss (FN) where
positive is right, a false alarm (FP) where it is not. So F1 is the lowest that any reading of the
text could give. Not counting it at all, or reading it as no, would call a model right that says
nothing wherever no is right; POPE's own script reads as yes whatever is not no.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from vlm_harness.metrics.metric import Record, guess, share
from vlm_harness.metrics.stats import Units
from vlm_harness.specs.schemas import GroupRules


class Counts(NamedTuple):
    """What a sample adds to each."""

    tp: float
    fp: float
    fn: float


@share("F1", needs={"positive"})
def f1(records: Sequence[Record], rules: GroupRules) -> Units:
    """F1 of the positive option, 2 TP / (2 TP + FP + FN); what is no answer is FP or FN."""
    counted = _with_positive(records)
    return _ratio(counted, lambda c: (2 * c.tp, 2 * c.tp + c.fp + c.fn), n=len(counted))


@share("precision", needs={"positive"})
def precision(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of positive answers that are right, TP / (TP + FP); what is no answer may be FP."""
    return _ratio(_with_positive(records), lambda c: (c.tp, c.tp + c.fp))


@share("recall", needs={"positive"})
def recall(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of samples whose right option is positive that are answered so, TP / (TP + FN)."""
    return _ratio(_with_positive(records), lambda c: (c.tp, c.tp + c.fn), by_answers=False)


@share("yes ratio", short="yes", needs={"positive"}, direction=None)
def yes_ratio(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of answers that are positive, right or wrong; what is no answer is left out (n)."""
    counted = _with_positive(records)
    answered = [each.prediction is not None for each in counted]
    n = sum(answered)
    chance = sum(guess([each]) for each in counted if each.prediction is not None)
    return Units.of(
        [each.prediction == each.positive for each in counted],
        [each.cluster for each in counted],
        answered,
        n=n,
        chance=chance / n if n else None,
        by_answers=True,
    )


def _with_positive(records: Sequence[Record]) -> list[Record]:
    return [each for each in records if each.positive is not None]


def _counts(record: Record) -> Counts:
    if record.target == record.positive:
        return Counts(record.correct, 0, not record.correct)
    # Another wrong option is none of the three: it is the right class, if not the right answer.
    return Counts(0, record.prediction in (record.positive, None), 0)


def _guessed(record: Record) -> Counts:
    """What a uniform guess is expected to add to each."""
    share = guess([record])
    if record.target == record.positive:
        return Counts(share, 0, 1 - share)
    return Counts(0, share, 0)


def _ratio(
    records: Sequence[Record],
    parts: Callable[[Counts], tuple[float, float]],
    n: int | None = None,
    by_answers: bool = True,
) -> Units:
    """``parts`` are what a sample adds to numerator and denominator."""
    found = [parts(_counts(each)) for each in records]
    tops, bottoms = [top for top, _ in found], [bottom for _, bottom in found]
    guessed = [parts(_guessed(each)) for each in records]
    expected = sum(bottom for _, bottom in guessed)
    return Units.of(
        tops,
        [each.cluster for each in records],
        bottoms,
        n=sum(map(bool, bottoms)) if n is None else n,
        chance=sum(top for top, _ in guessed) / expected if expected else None,
        by_answers=by_answers,
    )
