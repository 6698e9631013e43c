"""Commands that start, change, end and show experiments."""
