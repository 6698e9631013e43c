"""What passes cost on this device, and what follows from it."""
