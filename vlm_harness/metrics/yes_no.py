"""Binary classification: F1, precision, recall and the share of yes (the metrics of POPE).

The option that a task calls ``positive`` is one class; all other options are the other class.
Samples without that option are excluded from these metrics.

A sample without an answer (unparsed, tied or failed) is incorrect, as in all metrics: a false
negative if the positive option is correct, a false positive otherwise. F1 is therefore the lowest
that any parsing of the text could give. Ignoring such samples, or parsing them as no, would reward
a model that gives no answer whenever no is correct. The script of POPE parses everything as yes
that is not no.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from vlm_harness.metrics.metric import Record, guess, share
from vlm_harness.metrics.stats import Units
from vlm_harness.specs.schemas import GroupRules


class Counts(NamedTuple):
    """Contribution of a sample to the counts."""

    tp: float
    fp: float
    fn: float


@share("F1", needs={"positive"})
def f1(records: Sequence[Record], rules: GroupRules) -> Units:
    """F1 of the positive option, 2 TP / (2 TP + FP + FN). Unanswered samples count as FP or FN."""
    counted = _with_positive(records)
    return _ratio(counted, lambda c: (2 * c.tp, 2 * c.tp + c.fp + c.fn), n=len(counted))


@share("precision", needs={"positive"})
def precision(records: Sequence[Record], rules: GroupRules) -> Units:
    """Precision of the positive option, TP / (TP + FP); unanswered negatives count as FP."""
    return _ratio(_with_positive(records), lambda c: (c.tp, c.tp + c.fp))


@share("recall", needs={"positive"})
def recall(records: Sequence[Record], rules: GroupRules) -> Units:
    """Recall of the positive option, TP / (TP + FN); unanswered positives count as FN."""
    return _ratio(_with_positive(records), lambda c: (c.tp, c.tp + c.fn), by_answers=False)


@share("yes ratio", short="yes", needs={"positive"}, direction=None)
def yes_ratio(records: Sequence[Record], rules: GroupRules) -> Units:
    """Share of positive answers, correct or not; unanswered samples are excluded (see n)."""
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
    # Another incorrect option is a true negative: the class is correct, even if the answer is not.
    return Counts(0, record.prediction in (record.positive, None), 0)


def _guessed(record: Record) -> Counts:
    """Expected contribution of a uniform guess to the counts."""
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
    """``parts`` maps counts to the contribution to numerator and denominator."""
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
