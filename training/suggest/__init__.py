"""Which texts without a label would teach a model most."""
