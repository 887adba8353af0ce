"""The tables of the paper as data, and the same values measured here."""
