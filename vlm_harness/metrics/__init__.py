"""Metrics: from scored samples to values with intervals."""

from vlm_harness.metrics.metric import METRICS, Metric, Record, groups, guess
from vlm_harness.metrics.stats import Statistic, Units

__all__ = ["METRICS", "Metric", "Record", "Statistic", "Units", "groups", "guess"]
