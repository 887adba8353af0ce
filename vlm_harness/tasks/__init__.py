"""Make samples from rows, and prompts from samples and option orders."""
