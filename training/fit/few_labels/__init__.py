"""What a few rows of each label say: where their texts lie, and how well they are told apart."""
