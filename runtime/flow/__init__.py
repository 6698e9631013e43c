"""The path of a record from fetch to commit."""
