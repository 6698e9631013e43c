"""Entailment, as it is served: a classification of two texts that are encoded together."""

from murmura.runtime.model.kinds.classification import Classification
from murmura.runtime.model.kinds.forms import Reads


class Entailment(Classification):
    name = "entailment"
    training = "murmura_entailment.training:Entailment"
    reads = Reads.PAIR
    out_of_scope = False
