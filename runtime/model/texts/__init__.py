"""Texts before the model: their words, tokens and windows."""
