"""Scenarios: demos with all that belongs to them, each in a folder of its own; `stage` is what they share."""
