"""What a run goes on from and what its processes share: the saved state, and the CPU time so far."""
