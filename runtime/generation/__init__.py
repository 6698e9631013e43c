"""Replies that a model words by itself: what a decoder reads, and the pieces that it writes."""
