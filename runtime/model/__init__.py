"""One model folder and how it answers."""
