"""Records from the broker, and what a failed fetch is about."""
