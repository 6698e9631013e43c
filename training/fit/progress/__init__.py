"""What is measured on the way: curves, and scores of the validation rows that choose the checkpoint."""
