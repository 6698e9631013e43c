"""Contracts: the formats of records and of model folders. No I/O."""
