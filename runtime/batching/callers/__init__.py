"""Those who ask for single answers: checks, tokens, and a future for each."""
