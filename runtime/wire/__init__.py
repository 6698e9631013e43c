"""Decodes and encodes records. Pure."""
