"""What logs show beyond scores: comparisons, agreement, sweeps, calibration."""
