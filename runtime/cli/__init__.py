"""The command `murmura`, one file per command."""
