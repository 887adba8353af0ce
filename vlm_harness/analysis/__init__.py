"""Analyses of logs: comparisons, agreement, sweeps, calibration, pair mining."""
