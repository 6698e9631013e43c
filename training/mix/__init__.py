"""What a retraining learns from: corrections and old rows."""
