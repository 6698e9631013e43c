"""Every setting of a process, where it comes from, and files that people write."""
