"""What is trained around an encoder instead of its own weights; a file a method."""
