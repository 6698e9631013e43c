"""Code shared by scenarios: a broker and a desk in one process, the record of its messages, and the screen."""
