"""The screen of experiments: what runs, what the sums say so far, and what was decided."""
