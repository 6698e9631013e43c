"""Deltas: models stored as their difference from a base checkpoint, and the cache that they are assembled in."""
