"""What an encoder is pre-trained on: a file for each objective, its source in the docstring."""
