"""Publishes results, dead letters and events, and decides when a record is finished."""
