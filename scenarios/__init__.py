"""The demos: a desk, a broker and a model in one process, for whoever wants to see it before anything is set up."""
