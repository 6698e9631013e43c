"""Teachers: models of one task whose answers a joint training learns beside the labels."""
