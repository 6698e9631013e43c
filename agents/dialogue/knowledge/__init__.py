"""Knowledge: reviewed answers to questions, and the index that finds them."""
