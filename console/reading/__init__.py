"""Reads topics without a group into indexes that are bounded in records and bytes; there is no database."""
