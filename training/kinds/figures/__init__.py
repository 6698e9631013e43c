"""Figures on a set of rows: outcomes, counts, intervals, and what the report shows of them. Pure."""
