"""Dead letters sent again, each once, and records set aside: from outside the process that serves."""
