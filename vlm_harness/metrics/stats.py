"""Means with confidence intervals: a bootstrap over groups, because pairs are not independent."""

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
        return cls(numerators, denominators, count, chance, proportion, by_answers)

    @property
    def value(self) -> float | None:
        """The ratio of the sums, or None if the denominator is zero."""
        total = float(self.denominators.sum())
        return float(self.numerators.sum()) / total if total else None


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

        def values(sampled: Floats, axis: int = -1) -> Floats:
            resamples = sampled.astype(int).reshape(-1, self.clusters).tolist()
            found = [self.of(resample) for resample in resamples]
            return np.array(found, dtype=float).reshape(sampled.shape[:-1])  # None becomes NaN

        positions = np.arange(self.clusters, dtype=float)
        low, high = _bootstrap((positions,), values, seed, confidence, resamples=200)
        # If all resamples agree, an interval of width zero would suggest certainty.
        return (None, None) if low == high else (low, high)


def interval(
    units: Units, *, seed: int = 0, confidence: float = 0.95, resamples: int = 1000
) -> Interval:
    """Percentile bootstrap over clusters (``scipy.stats.bootstrap``).

    Undefined (None) for fewer than two clusters. If all clusters agree, all resamples are equal,
    and an interval of width zero would suggest certainty. For a proportion, the Wilson interval
    over the clusters is returned then.
    """
    value = units.value
    if len(units.numerators) < 2 or value is None:
        return None, None
    if np.allclose(units.numerators, value * units.denominators):
        if not units.proportion:
            return value, value
        from scipy.stats import binomtest

        # Clusters that do not count, such as true negatives in F1, are no evidence.
        clusters = int(np.count_nonzero(units.denominators))
        wilson = binomtest(round(value * clusters), clusters).proportion_ci(confidence, "wilson")
        return min(float(wilson.low), value), max(float(wilson.high), value)
    return _bootstrap((units.numerators, units.denominators), _ratio, seed, confidence, resamples)


def _ratio(numerators: Floats, denominators: Floats, axis: int = -1) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = numerators.sum(axis=axis) / denominators.sum(axis=axis)
    return result


def _bootstrap(
    columns: Sequence[Floats],
    statistic: Callable[..., Floats],
    seed: int,
    confidence: float = 0.95,
    resamples: int = 1000,
) -> Interval:
    """Percentile interval of a statistic of columns with one row per cluster.

    Resamples with an undefined value are excluded, such as precision without a positive answer in
    the resample.
    """
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
            rng=np.random.default_rng(seed),
        )
    values = result.bootstrap_distribution
    values = values[np.isfinite(values)]
    if not len(values):
        return None, None
    tail = (1 - confidence) / 2
    low, high = np.percentile(values, [100 * tail, 100 * (1 - tail)])
    return float(low), float(high)


def estimate(units: Units | Statistic, chance: float | None = None, *, seed: int = 0) -> Estimate:
    """Value and interval. ``chance`` overrides the chance of the units."""
    low, high = units.interval(seed) if isinstance(units, Statistic) else interval(units, seed=seed)
    known = units.chance if chance is None else chance
    return Estimate(value=units.value, ci_low=low, ci_high=high, n=units.n, chance=known)


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
