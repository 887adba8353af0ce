"""Metrics: compute values with confidence intervals from scored samples."""

from vlm_harness.metrics.metric import Equal, Metric, Record, groups, guess, metric, share
from vlm_harness.metrics.registry import METRICS
from vlm_harness.metrics.stats import Statistic, Units

__all__ = [
    "METRICS",
    "Equal",
    "Metric",
    "Record",
    "Statistic",
    "Units",
    "groups",
    "guess",
    "metric",
    "share",
]
