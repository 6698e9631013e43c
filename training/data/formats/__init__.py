"""The formats of data files: each gives rows."""
