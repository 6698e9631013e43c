"""Holds the experiments of an app's models: reads what they count, keeps the sums, and acts on decisions."""
