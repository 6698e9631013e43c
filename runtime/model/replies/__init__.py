"""Decoding of replies: the rows that are decoded together, when they come and go, and the loop over them."""
