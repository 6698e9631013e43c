"""The network that is trained: encoders, heads, adapters."""
