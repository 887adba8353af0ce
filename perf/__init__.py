"""How fast, as ratios against named alternatives: one command each, see docs/speed.md."""
