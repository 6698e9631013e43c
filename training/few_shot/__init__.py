"""A model from a few examples of each label, in seconds."""
