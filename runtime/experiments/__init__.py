"""Experiments: which side a unit is on, and what the sums of both sides allow to conclude. Pure."""
