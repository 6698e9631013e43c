"""A run folder as a model folder, proven against the network."""
