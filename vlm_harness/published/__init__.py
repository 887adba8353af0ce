"""The tables of the paper as data, and code to re-run their cells."""
