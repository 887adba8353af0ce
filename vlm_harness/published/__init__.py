"""The tables of the paper as data, and code to rerun their cells."""
