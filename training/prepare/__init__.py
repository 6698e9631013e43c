"""Examples to tasks: labels, splits, checks."""
