"""The way of a record, from fetch to commit."""
