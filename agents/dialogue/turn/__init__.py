"""One turn of a conversation: what it means, what is answered, and in which words."""
