"""Handlers: their records from delivery to end."""
