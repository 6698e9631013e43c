"""The built-in agents: a file or a folder each."""
