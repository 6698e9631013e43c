"""The policy of a desk: what it asks, says and does, and the file it is read from."""
