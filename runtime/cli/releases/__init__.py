"""`murmura models`: push, release, rollback and history."""
