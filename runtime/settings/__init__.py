"""The settings of a process, their sources, and files written by people."""
