"""What every training loop computes with: the device, the rows of its steps, AdamW and its rates, the saved state."""
