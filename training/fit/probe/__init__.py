"""Logistic regression on the frozen encoder: the probe beside the scores, and the heads that begin from it."""
