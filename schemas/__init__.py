"""Contracts only: what travels on the wire and what lies in a model folder. No I/O."""
