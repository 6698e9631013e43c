"""Bytes of records to what the runtime works with, and back. Pure."""
