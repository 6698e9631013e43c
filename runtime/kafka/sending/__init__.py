"""Sends records: producers, what a failed send means and for whom, and its repetition."""
