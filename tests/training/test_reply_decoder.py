"""The decoder of replies in torch: what it computes, from what it begins, and what it decodes."""

import numpy as np
import pytest
import torch
from tiny_decoder import ENCODER, decode_by_hand, decoder_weights, reply_task
from torch import Tensor

from murmura.runtime.errors import SetupError
from murmura.schemas.manifest import GenerationSpec
from murmura.training.export.parity import build_head
from murmura.training.kinds.replies.decoder import NO_PIECE, ReplyDecoder, log_probabilities, spread_layers
from murmura.training.model.encoders import build_encoder

TASK = reply_task()
WEIGHTS = decoder_weights(ENCODER, TASK)
TEXTS = [7, 1, 4]
"""Tokens of the texts of a batch."""


@pytest.fixture(scope="module")
def decoder() -> ReplyDecoder:
    config = build_encoder(ENCODER, {}, dropout=0.0).config
    head = build_head(TASK, config, WEIGHTS)
    assert isinstance(head, ReplyDecoder)
    return head


@pytest.fixture(scope="module")
def states() -> tuple[Tensor, Tensor]:
    """Return states and mask of a padded batch; padding holds what would change every figure."""
    random = np.random.default_rng(3)
    hidden = random.normal(0, 1, (len(TEXTS), max(TEXTS), ENCODER.hidden_size)).astype(np.float32)
    mask = np.arange(max(TEXTS)) < np.array(TEXTS)[:, None]
    hidden[~mask] = 50
    return torch.from_numpy(hidden), torch.from_numpy(mask.astype(np.int64))


def test_it_computes_the_formulas(decoder: ReplyDecoder, states: tuple[Tensor, Tensor]) -> None:
    replies = [[3, 5, 9, 0], [1, 0], [2, 2, 0]]
    target = torch.full((3, 4), NO_PIECE)
    for row, pieces in enumerate(replies):
        target[row, : len(pieces)] = torch.tensor(pieces)
    with torch.no_grad():
        logits = decoder(*states, target)
    scores = log_probabilities(logits, target)
    for row, pieces in enumerate(replies):
        expected = decode_by_hand(WEIGHTS, TASK, states[0][row, : TEXTS[row]].numpy(), pieces[:-1])
        np.testing.assert_allclose(logits[row, : len(pieces)].numpy(), expected, atol=2e-4, rtol=1e-4)
        shares = np.exp(expected) / np.exp(expected).sum(-1, keepdims=True)
        np.testing.assert_allclose(scores[row], np.log(shares[range(len(pieces)), pieces]), atol=2e-4)


def test_greedy_decoding_with_a_cache_is_that_without(decoder: ReplyDecoder, states: tuple[Tensor, Tensor]) -> None:
    for row, found in enumerate(decoder.decode(*states)):
        hidden, pieces = states[0][row, : TEXTS[row]].numpy(), []
        while len(pieces) < TASK.generation.max_tokens and 0 not in pieces:
            logits = decode_by_hand(WEIGHTS, TASK, hidden, pieces)[-1]
            pieces.append(int(logits.argmax()))
            best = np.sort(logits)[-2:]
            assert found.margins[len(pieces) - 1] == pytest.approx(best[1] - best[0], abs=1e-3)
        assert found.pieces == pieces


def test_a_forbidden_piece_is_in_no_reply_and_has_no_share_of_the_probabilities(
    decoder: ReplyDecoder, states: tuple[Tensor, Tensor]
) -> None:
    firsts = [found.pieces[0] for found in decoder.decode(*states)]
    forbidden = torch.zeros(len(TEXTS), len(TASK.labels))
    forbidden[range(len(TEXTS)), firsts] = -1e4
    for row, found in enumerate(decoder.decode(*states, forbidden)):
        assert firsts[row] not in found.pieces
        logits = decode_by_hand(WEIGHTS, TASK, states[0][row, : TEXTS[row]].numpy(), [])[-1]
        logits[firsts[row]] = -np.inf
        share = np.exp(logits.max()) / np.exp(logits).sum()
        assert found.log_probabilities[0] == pytest.approx(np.log(share), abs=1e-3)


def test_its_weights_have_the_names_that_serving_reads(decoder: ReplyDecoder) -> None:
    own = {f"heads.{TASK.name}.{name}": tuple(weight.shape) for name, weight in decoder.named_parameters()}
    assert own == {name: weight.shape for name, weight in WEIGHTS.items() if name.startswith("heads.")}


@pytest.mark.parametrize(
    ("count", "depth", "chosen"), [(3, 6, [1, 3, 5]), (1, 6, [5]), (6, 6, [0, 1, 2, 3, 4, 5]), (2, 3, [1, 2])]
)
def test_layers_begin_as_layers_of_the_encoder_spread_evenly(count: int, depth: int, chosen: list[int]) -> None:
    assert spread_layers(count, depth) == chosen


def test_more_layers_than_the_encoder_has_are_refused() -> None:
    with pytest.raises(SetupError, match="a decoder of 4 layers cannot begin from an encoder of 3; set `layers` to 3"):
        spread_layers(4, 3)


def test_it_begins_as_the_encoder() -> None:
    encoder = build_encoder(ENCODER, {}, dropout=0.0)
    weights = encoder.state_dict()
    decoder = ReplyDecoder(encoder.config, pieces=3, layers=1, positions=4)
    decoder.begin_from(weights, [[2], [4, 5], [6]], start=1)
    table = weights["embeddings.word_embeddings.weight"]
    assert torch.equal(decoder.embedding, torch.stack([table[2], (table[4] + table[5]) / 2, table[6], table[1]]))
    last = f"encoder.layer.{ENCODER.layers - 1}."
    for attention in ("self", "cross"):
        assert torch.equal(
            decoder.state_dict()[f"layers.0.{attention}.key.weight"], weights[f"{last}attention.self.key.weight"]
        )
    assert torch.equal(decoder.state_dict()["layers.0.feed_forward.up.bias"], weights[f"{last}intermediate.dense.bias"])


def test_sizes_of_the_task_are_those_of_the_decoder() -> None:
    sizes = GenerationSpec(context=1, acts=False, layers=1, max_tokens=6, slots=[])
    task = TASK.model_copy(update={"generation": sizes})
    shapes = decoder_weights(ENCODER, task)
    head = build_head(task, build_encoder(ENCODER, {}, dropout=0.0).config, shapes)
    assert len(head.layers) == 1
    assert head.position.shape == (6, ENCODER.hidden_size)
