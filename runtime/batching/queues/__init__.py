"""What waits for the device, in which order it leaves, and who receives the answers."""
