"""Executes a run: plan, run folder, batches, cache."""
