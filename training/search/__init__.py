"""Hyper-parameter search: the space of a recipe, trials, the study, and its page."""
