"""Texts of all callers in batches on one device, and what happens when it fails."""
