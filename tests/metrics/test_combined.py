"""Intervals of scores of several tasks: against a direct bootstrap and Wilson intervals."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.records import RULES, records
from vlm_harness.metrics import METRICS
from vlm_harness.metrics.stats import Statistic, Term, Units, combined_interval, estimate, interval


def accuracy(n: int, share: float, seed: int) -> Units:
    values = np.random.default_rng(seed).random(n) < share
    return Units.of(list(map(float, values)), [str(number) for number in range(n)])


def direct(terms: list[tuple[float, Units]], resamples: int = 20_000) -> tuple[float, float]:
    """Resample the clusters of each task on its own, and recompute the score each time."""
    rng = np.random.default_rng(99)
    total = np.zeros(resamples)
    for weight, units in terms:
        n = len(units.numerators)
        chosen = rng.integers(0, n, (resamples, n))
        top, bottom = units.numerators[chosen].sum(1), units.denominators[chosen].sum(1)
        total += weight * top / bottom
    low, high = np.percentile(total, [2.5, 97.5])
    return float(low), float(high)


@pytest.mark.parametrize("weights", [(1 / 3, 1 / 3, 1 / 3), (0.1, 0.2, 0.7), (1.0, 1.0, 1.0)])
def test_the_interval_is_that_of_a_direct_bootstrap(weights: tuple[float, ...]) -> None:
    units = [accuracy(80, 0.3, 1), accuracy(200, 0.6, 2), accuracy(120, 0.9, 3)]
    found = combined_interval([Term(w, [u]) for w, u in zip(weights, units, strict=True)])
    expected = direct(list(zip(weights, units, strict=True)))
    width = expected[1] - expected[0]
    assert found == pytest.approx(expected, abs=0.08 * width)


def test_f1_is_resampled_as_a_ratio() -> None:
    tasks = ["yy yy yn ny nn nn " * 20, "yy yn yn ny ny nn " * 25]
    units = [METRICS.get("f1")(records(text), RULES) for text in tasks]
    assert all(isinstance(each, Units) for each in units)
    found = combined_interval([Term(1 / 2, [each]) for each in units])
    expected = direct([(1 / 2, each) for each in units if isinstance(each, Units)])
    assert found == pytest.approx(expected, abs=0.08 * (expected[1] - expected[0]))


@pytest.mark.parametrize("share", [0.4, 1.0, 0.0])
def test_a_group_of_one_task_has_the_interval_of_the_task(share: float) -> None:
    units = accuracy(50, share, 5)
    assert combined_interval([Term(1.0, [units])], seed=7) == pytest.approx(interval(units, seed=7))


def test_more_tasks_give_a_narrower_interval_of_the_mean() -> None:
    widths = []
    for n in (1, 4):
        low, high = combined_interval([Term(1 / n, [accuracy(100, 0.5, s)]) for s in range(n)])
        assert low is not None
        assert high is not None
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 2, rel=0.15)


def test_tasks_whose_clusters_all_agree_add_their_wilson_intervals() -> None:
    """Square-and-add: a width of zero would suggest certainty."""
    right, wrong = accuracy(20, 1.0, 1), accuracy(20, 0.0, 1)
    low, high = interval(right)
    assert low is not None
    half = (1 - low) / 2
    assert high == 1.0
    assert combined_interval([Term(1 / 2, [right])] * 2) == pytest.approx(
        (1 - math.sqrt(2) * half, 1.0)
    )
    assert combined_interval([Term(1 / 2, [right]), Term(1 / 2, [wrong])]) == pytest.approx(
        (0.5 - half, 0.5 + half)
    )
    varying = accuracy(60, 0.5, 4)
    alone = combined_interval([Term(1 / 2, [varying])])
    both = combined_interval([Term(1 / 2, [varying]), Term(1 / 2, [right])])
    value = varying.value
    assert alone[0] is not None
    assert value is not None
    assert both[0] == pytest.approx(0.5 + value / 2 - math.hypot(value / 2 - alone[0], half))


def test_numbers_that_agree_add_nothing() -> None:
    same = replace(accuracy(20, 1.0, 1), proportion=False)
    assert combined_interval([Term(1.0, [same]), Term(2.0, [same])]) == (3.0, 3.0)


def test_metrics_of_one_task_are_resampled_together() -> None:
    """The sum of a metric and its complement is constant, which separate resamples would not be."""
    units = accuracy(100, 0.5, 3)
    complement = replace(units, numerators=units.denominators - units.numerators)
    assert combined_interval([Term(1.0, [units, complement])]) == pytest.approx((1.0, 1.0))
    twice = combined_interval([Term(1.0, [units, units])])
    once = interval(units)
    assert twice == pytest.approx([2 * end for end in once if end is not None], abs=0.02)


def test_metrics_over_different_clusters_are_matched_by_name() -> None:
    """Pair accuracy lacks the incomplete pairs that individual accuracy has."""
    text = "a1+ a2+ b1+ b2- c1- c2- d1+ e1+ e2+ f1-"
    both = [
        METRICS.get(name)(records(text), RULES) for name in ("individual_accuracy", "pair_accuracy")
    ]
    low, high = combined_interval([Term(1.0, both)])
    assert low is not None
    assert high is not None
    value = sum(each.value or 0 for each in both)
    assert 0 <= low < value < high <= 2
    unnamed = [replace(each, clusters=()) for each in both if isinstance(each, Units)]
    assert combined_interval([Term(1.0, unnamed)]) == (None, None)


def test_without_enough_clusters_there_is_no_interval() -> None:
    units, single = accuracy(50, 0.5, 1), accuracy(1, 1.0, 1)
    empty = Units.of([], [])
    assert combined_interval([Term(0.5, [units]), Term(0.5, [single])]) == (None, None)
    assert combined_interval([Term(0.5, [units]), Term(0.5, [empty])]) == (None, None)


def test_metrics_that_are_recomputed() -> None:
    values = [float(number % 3) for number in range(60)]
    statistic = Statistic(lambda at: sum(values[i] for i in at) / len(at), 60, 60)
    units = Units.of(values, list(map(str, range(60))), proportion=False)
    found = combined_interval([Term(0.5, [statistic]), Term(0.5, [units])])
    assert found == pytest.approx(direct([(0.5, units), (0.5, units)]), abs=0.05)
    constant = Statistic(lambda at: 1.0, 60, 60)
    assert estimate(constant).ci_low is None
    assert combined_interval([Term(0.5, [constant]), Term(0.5, [units])]) == (None, None)


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(2, 12), st.integers(0, 10), st.floats(0.05, 2)),
        min_size=1,
        max_size=4,
    )
)
def test_the_value_is_inside_the_interval(tasks: list[tuple[int, int, float]]) -> None:
    terms = [Term(w, [accuracy(n, share / 10, n + share)]) for n, share, w in tasks]
    low, high = combined_interval(terms)
    value = sum(term.weight * (term.metrics[0].value or 0) for term in terms)
    assert low is not None
    assert high is not None
    assert -1e-9 <= low <= value + 1e-9
    assert value - 1e-9 <= high <= sum(term.weight for term in terms) + 1e-9
