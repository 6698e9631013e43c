"""Self-training: a model learns what it guessed of texts without labels."""
