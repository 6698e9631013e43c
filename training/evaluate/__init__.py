"""Scores of a model folder on data sets, as served."""
