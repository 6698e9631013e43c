"""The files of a model folder: what they are, their checks, and its card."""
