"""Benchmarks of speed relative to named alternatives, one command each: see docs/speed.md."""
