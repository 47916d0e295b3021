"""Measures of what was drawn: fidelity and privacy; knows tables, not how they came about."""
