"""Redrives dead letters, each once, and sets records aside, from outside the serving process."""
