"""Tasks with few rows a label: centres of the labels, and cross-validation."""
