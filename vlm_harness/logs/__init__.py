"""What a run writes, and how to read it."""
