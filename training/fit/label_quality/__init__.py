"""Training rows whose label is probably wrong."""
