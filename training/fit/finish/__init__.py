"""What happens at the end: second stages, heads fitted once more, thresholds, and tasks and vectors put beside."""
