"""Entailment, as it is learned: like any classification. The second text comes from the column `text_pair`."""

from murmura.training.kinds.classification import Classification


class Entailment(Classification):
    name = "entailment"
