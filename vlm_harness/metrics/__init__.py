"""Metrics: from scored samples to values with intervals."""

from vlm_harness.metrics.metric import METRICS, Metric, Record, groups, guess

__all__ = ["METRICS", "Metric", "Record", "groups", "guess"]
