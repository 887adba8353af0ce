"""Means with confidence intervals: a bootstrap over groups, because pairs are not independent."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from vlm_harness.types import Estimate

Interval = tuple[float | None, float | None]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Units:
    """A metric before it is summed: ``value = sum(numerators) / sum(denominators)``.

    One entry per cluster; the bootstrap resamples clusters. For a mean over samples, the numerator
    of a cluster is its number of correct samples, and the denominator its number of samples.
    """

    numerators: Floats
    denominators: Floats
    n: int
    """Number of samples, pairs or sets in the value."""
    chance: float | None = None
    """Expected value of a uniform guess."""
    proportion: bool = True
    """True for a share of units that are correct or incorrect; False for a mean of numbers."""
    by_answers: bool = False
    """True if the denominator depends on the answers, as in precision. The units of two runs then
    cannot be matched. Units that do not count are still included, with a weight of zero."""
    clusters: tuple[str, ...] = ()
    """Name of the cluster of each entry, to resample several metrics together; empty if unknown."""

    @classmethod
    def of(
        cls,
        values: Sequence[float],
        clusters: Sequence[str],
        weights: Sequence[float] | None = None,
        n: int | None = None,
        chance: float | None = None,
        proportion: bool = True,
        by_answers: bool = False,
    ) -> "Units":
        """Sum values (and weights, 1 each by default) within clusters."""
        index: dict[str, int] = {}
        positions = np.array([index.setdefault(key, len(index)) for key in clusters], dtype=int)
        numerators = np.zeros(len(index))
        denominators = np.zeros(len(index))
        np.add.at(numerators, positions, np.asarray(values, dtype=float))
        np.add.at(denominators, positions, 1.0 if weights is None else np.asarray(weights))
        count = len(values) if n is None else n
        return cls(numerators, denominators, count, chance, proportion, by_answers, tuple(index))

    @property
    def value(self) -> float | None:
        """The ratio of the sums, or None if the denominator is zero."""
        total = float(self.denominators.sum())
        return float(self.numerators.sum()) / total if total else None

    @property
    def uniform(self) -> bool:
        """Whether all clusters agree, so that all resamples have the same value."""
        return self.value is not None and np.allclose(
            self.numerators, self.value * self.denominators
        )


@dataclass(frozen=True)
class Statistic:
    """A metric that is not a ratio of sums; it is recomputed for each bootstrap resample."""

    of: Callable[[Sequence[int]], float | None]
    """The value over the clusters at these positions; a position can occur several times."""
    clusters: int
    n: int
    chance: float | None = None

    @cached_property
    def value(self) -> float | None:
        return self.of(range(self.clusters))

    def minus(self, other: "Statistic") -> "Statistic":
        """The difference of two statistics over the same clusters."""

        def difference(sampled: Sequence[int]) -> float | None:
            mine, theirs = self.of(sampled), other.of(sampled)
            return None if mine is None or theirs is None else mine - theirs

        return Statistic(difference, self.clusters, self.n)

    def interval(self, seed: int, confidence: float = 0.95) -> Interval:
        """Percentile bootstrap with only 200 resamples, because third-party code can be slow."""
        if self.clusters < 2 or self.value is None:
            return None, None
        positions = np.arange(self.clusters, dtype=float)
        low, high = _bootstrap((positions,), self.values, seed, confidence, STATISTIC_RESAMPLES)
        # If all resamples agree, an interval of width zero would suggest certainty.
        return (None, None) if low == high else (low, high)

    def values(self, sampled: Floats, axis: int = -1) -> Floats:
        """The value of each resample of positions; NaN if it is undefined."""
        resamples = sampled.astype(int).reshape(-1, self.clusters).tolist()
        found = [self.of(resample) for resample in resamples]
        return np.array(found, dtype=float).reshape(sampled.shape[:-1])  # None becomes NaN


RESAMPLES = 1000
STATISTIC_RESAMPLES = 200
"""For third-party code, which can be slow."""


def interval(
    units: Units, *, seed: int = 0, confidence: float = 0.95, resamples: int = RESAMPLES
) -> Interval:
    """Percentile bootstrap over clusters (``scipy.stats.bootstrap``).

    Undefined (None) for fewer than two clusters. If all clusters agree, all resamples are equal,
    and an interval of width zero would suggest certainty. For a proportion, the Wilson interval
    over the clusters is returned then.
    """
    value = units.value
    if len(units.numerators) < 2 or value is None:
        return None, None
    if units.uniform:
        return _uniform(units, value, confidence)
    return _bootstrap((units.numerators, units.denominators), _ratio, seed, confidence, resamples)


def _uniform(units: Units, value: float, confidence: float) -> tuple[float, float]:
    """The interval if all clusters agree."""
    if not units.proportion:
        return value, value
    from scipy.stats import binomtest

    # Clusters that do not count, such as true negatives in F1, are no evidence.
    clusters = int(np.count_nonzero(units.denominators))
    wilson = binomtest(round(value * clusters), clusters).proportion_ci(confidence, "wilson")
    return min(float(wilson.low), value), max(float(wilson.high), value)


def _ratio(numerators: Floats, denominators: Floats, axis: int = -1) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = numerators.sum(axis=axis) / denominators.sum(axis=axis)
    return result


def _bootstrap(
    columns: Sequence[Floats],
    statistic: Callable[..., Floats],
    seed: int,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Percentile interval of a statistic of columns with one row per cluster."""
    rng = np.random.default_rng(seed)
    return _percentiles(_distribution(columns, statistic, rng, resamples), confidence)


def _percentiles(values: Floats, confidence: float) -> Interval:
    """Percentile interval of resampled values.

    Resamples with an undefined value are excluded, such as precision without a positive answer in
    the resample.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return None, None
    tail = (1 - confidence) / 2
    low, high = np.percentile(values, [100 * tail, 100 * (1 - tail)])
    return float(low), float(high)


def _distribution(
    columns: Sequence[Floats],
    statistic: Callable[..., Floats],
    rng: np.random.Generator,
    resamples: int,
) -> Floats:
    """The values of a statistic of columns, with one row per cluster, in resamples of the rows."""
    from scipy.stats import bootstrap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns about resamples without a value
        result = bootstrap(
            columns,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            # An index matrix of 100,000 clusters x 1,000 resamples would take gigabytes.
            batch=max(1, min(resamples, 4_000_000 // len(columns[0]))),
            method="percentile",
            rng=rng,
        )
    found: Floats = result.bootstrap_distribution
    return found


def estimate(units: Units | Statistic, chance: float | None = None, *, seed: int = 0) -> Estimate:
    """Value and interval. ``chance`` overrides the chance of the units."""
    low, high = units.interval(seed) if isinstance(units, Statistic) else interval(units, seed=seed)
    known = units.chance if chance is None else chance
    return Estimate(value=units.value, ci_low=low, ci_high=high, n=units.n, chance=known)


# --- scores of several tasks ----------------------------------------------------------------------


@dataclass(frozen=True)
class Term:
    """The contribution of one task to a score of several tasks."""

    weight: float
    metrics: Sequence[Units | Statistic]
    """Metrics that are added; all over the clusters of the task."""


def combined_interval(
    terms: Sequence[Term], *, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Interval of a weighted sum of metrics of several tasks.

    The clusters of each task are resampled independently of those of the other tasks. So the tasks
    are assumed to be independent samples; if they share images, on which a model succeeds or fails
    alike, the interval is somewhat too narrow. The resamples of one task are the same for all of
    its metrics.

    Where all clusters of a task agree, its resamples do not vary. Its Wilson interval is then
    added by the square-and-add method (MOVER, Zou and Donner 2008). Undefined (None) if any task
    has fewer than two clusters or no value.
    """
    metrics = [metric for term in terms for metric in term.metrics]
    if any(metric.value is None or _n_clusters(metric) < 2 for metric in metrics):
        return None, None
    third_party = any(isinstance(metric, Statistic) for metric in metrics)
    draws = np.zeros(STATISTIC_RESAMPLES if third_party else RESAMPLES)
    value = below = above = 0.0
    for number, term in enumerate(terms):
        varying: list[Units | Statistic] = []
        for metric in term.metrics:
            one = metric.value or 0.0
            value += term.weight * one
            if isinstance(metric, Units) and metric.uniform:
                ends = _uniform(metric, one, confidence)
                below += (term.weight * (one - ends[0])) ** 2
                above += (term.weight * (ends[1] - one)) ** 2
            else:
                varying.append(metric)
        if varying:
            # The first task as on its own: a group of one task has the interval of the task.
            rng = np.random.default_rng([seed, number] if number else seed)
            found = _resampled(varying, rng, len(draws))
            if found is None:
                return None, None
            draws += term.weight * (found - sum(metric.value or 0.0 for metric in varying))
    low, high = _percentiles(draws, confidence)
    if low is None or high is None:
        return None, None
    return (
        value - math.hypot(min(low, 0.0), math.sqrt(below)),
        value + math.hypot(max(high, 0.0), math.sqrt(above)),
    )


def _n_clusters(metric: Units | Statistic) -> int:
    return metric.clusters if isinstance(metric, Statistic) else len(metric.numerators)


def _resampled(
    metrics: Sequence[Units | Statistic], rng: np.random.Generator, resamples: int
) -> Floats | None:
    """The sum of some metrics of one task in resamples of its clusters.

    None if the clusters of several metrics cannot be matched, or if a ``Statistic`` does not vary,
    as in ``Statistic.interval``.
    """
    first = metrics[0]
    if len(metrics) > 1:
        columns = _aligned(metrics)
        return None if columns is None else _distribution(columns, _sum_of_ratios, rng, resamples)
    if isinstance(first, Units):
        return _distribution((first.numerators, first.denominators), _ratio, rng, resamples)
    positions = np.arange(first.clusters, dtype=float)
    found = _distribution((positions,), first.values, rng, resamples)
    low, high = _percentiles(found, 0.95)
    return None if low == high else found


def _aligned(metrics: Sequence[Units | Statistic]) -> list[Floats] | None:
    """Numerators and denominators of each metric over all clusters that any of them has."""
    units = [metric for metric in metrics if isinstance(metric, Units)]
    if len(units) < len(metrics) or any(len(u.clusters) != len(u.numerators) for u in units):
        return None
    names = dict.fromkeys(name for each in units for name in each.clusters)
    index = {name: position for position, name in enumerate(names)}
    columns = []
    for each in units:
        places = [index[name] for name in each.clusters]
        for values in (each.numerators, each.denominators):
            column = np.zeros(len(index))
            column[places] = values
            columns.append(column)
    return columns


def _sum_of_ratios(*columns: Floats, axis: int = -1) -> Floats:
    ratios = (
        _ratio(top, bottom, axis) for top, bottom in zip(columns[::2], columns[1::2], strict=True)
    )
    found: Floats = np.sum([*ratios], axis=0)
    return found


# --- comparing two runs ---------------------------------------------------------------------------


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value of McNemar's test (McNemar 1947).

    Units on which both sides agree carry no information. Under the null hypothesis, each unit on
    which they disagree is equally likely to favour either side: a binomial test of b out of b + c
    with probability 1/2.
    """
    if only_a + only_b == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for multiple testing by the step-down method (Holm 1979)."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(factors * np.asarray(p_values)[order])
    return [float(value) for value in np.minimum(adjusted, 1)]


def difference_interval(units: Units, seed: int = 0) -> Interval:
    """95% interval of a difference of two metrics; ``units`` has the difference per cluster.

    Resampling clusters with both sides is the paired bootstrap. If all clusters have the same
    difference, an interval of width zero would suggest certainty, as in ``interval``. For
    proportions, it is then widened by the Wilson bound on the share of clusters unlike those seen.
    """
    # Not as a proportion: differences can be negative, to which the Wilson interval does not apply.
    low, high = interval(replace(units, proportion=False), seed=seed)
    if low is None or high is None or low != high or not units.proportion:
        return low, high
    return _widened(low, high, len(units.numerators))


def ratio_difference_interval(a: Units, b: Units, seed: int = 0) -> Interval:
    """95% interval of the difference b - a of two ratios with different denominators (F1).

    Both have the same clusters in the same order; each cluster is resampled with both sides.
    """
    columns = (a.numerators, a.denominators, b.numerators, b.denominators)
    if len(a.numerators) < 2:
        return None, None
    if all(map(np.array_equal, columns[:2], columns[2:])):
        return _widened(0.0, 0.0, int(np.count_nonzero(a.denominators)))

    def difference(a1: Floats, a2: Floats, b1: Floats, b2: Floats, axis: int = -1) -> Floats:
        return _ratio(b1, b2, axis) - _ratio(a1, a2, axis)

    return _bootstrap(columns, difference, seed)


def _widened(low: float, high: float, clusters: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    unseen = 1 - float(binomtest(clusters, clusters).proportion_ci(0.95, "wilson").low)
    return max(-1.0, low - unseen), min(1.0, high + unseen)
