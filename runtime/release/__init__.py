"""Versions of a model: the store, releases, and the swap."""
