"""The command `murmura`; one file for each command."""
