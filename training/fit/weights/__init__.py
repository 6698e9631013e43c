"""How the tasks of a joint step count against each other: one file a method."""
