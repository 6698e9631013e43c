"""Scenarios: complete demos, each in its own folder; `stage` has the code that they share."""
