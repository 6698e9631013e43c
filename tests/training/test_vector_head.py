"""The map that keeps vectors of texts as they were before a training."""

from dataclasses import replace

import numpy as np
from tiny_model import INTENT, random_weights, tiny_encoder, tiny_tokenizer

from murmura.runtime.model.vectors import unit_vectors
from murmura.schemas.manifest import ModelManifest
from murmura.training.fit.finish.vector_head import fit_vector_head
from murmura.training.model.encoders import Checkpoint, build_encoder
from murmura.training.model.special_tokens import read_special_tokens

SPEC = tiny_encoder()
TYPES = {"embeddings.token_type_embeddings.weight": np.zeros((2, SPEC.hidden_size), np.float32)}
WEIGHTS = random_weights(SPEC, [INTENT], pooled_layers=[0, 2]) | TYPES
TOKENIZER = tiny_tokenizer()
BASE = Checkpoint(SPEC, WEIGHTS, TOKENIZER, read_special_tokens(TOKENIZER, "tiny"))
MANIFEST = ModelManifest(name="m", encoder=SPEC, tasks=[INTENT], files=[], pooled=True, pooled_layers=[0, 2])
RANDOM = np.random.default_rng(0)
TEXTS = [RANDOM.integers(5, 30, RANDOM.integers(3, 9)).astype(np.int32) for _ in range(400)]


def test_the_vectors_of_an_encoder_that_has_not_changed_are_found_again() -> None:
    head = fit_vector_head(build_encoder(SPEC, WEIGHTS, dropout=0.0), BASE, TEXTS, seed=0, device="cpu")
    assert head.layers == [1, 2]
    assert {name: array.shape for name, array in head.weights.items()} == {
        "heads.pooled.weight": (16, 32),
        "heads.pooled.bias": (16,),
    }
    assert head.similarity > 0.98


def test_a_model_that_has_such_a_map_keeps_its_own_vectors_and_not_its_last_layers() -> None:
    encoder = build_encoder(SPEC, WEIGHTS, dropout=0.0)
    plain, own = (
        fit_vector_head(encoder, replace(BASE, manifest=manifest), TEXTS, seed=0, device="cpu")
        for manifest in (None, MANIFEST)
    )
    between = (unit_vectors(plain.weight) * unit_vectors(own.weight)).sum(1)
    assert own.similarity > 0.8
    assert np.abs(between).max() < 0.9
