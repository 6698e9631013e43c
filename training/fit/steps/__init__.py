"""One step: the losses of its tasks, their gradient over parts and processes, and what the optimiser does with it."""
