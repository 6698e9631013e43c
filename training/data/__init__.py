"""Files become rows, and rows become examples of a task."""
