"""What each method around the encoder, the mix of layers and the optimisers compute, by answers that are known without them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_methods import IDS, MASK, attached, disturb
from torch import nn
from transformers import BertConfig

from murmura.runtime.model.deltas.delta import apply_delta
from murmura.schemas.manifest import HeadForm
from murmura.training.compute.optimiser import MOMENTUM, make_torch_optimiser
from murmura.training.kinds.heads import FormedHead
from murmura.training.model.encoders import build_encoder, load

PLACES = torch.tensor([[0, 0, 1, 2, 3, 4]])
"""Of a word that is read before a text, and of the text."""


def plain(base: Path) -> Any:
    found = load(str(base))
    return build_encoder(found.spec, found.weights, dropout=0.0).eval()


def with_word(word: int) -> dict[str, torch.Tensor]:
    """The texts behind a word that stands at the first position, too."""
    ids = torch.cat([torch.full((len(IDS), 1), word), IDS], 1)
    return {"input_ids": ids, "attention_mask": torch.cat([MASK[:, :1], MASK], 1), "position_ids": PLACES}


def test_lora_adds_a_change_of_its_rank_alpha_times_over_rank(base: Path) -> None:
    found, name = load(str(base)), "encoder.layer.1.attention.self.value.weight"
    encoder, method = attached(base, {"name": "lora", "rank": 2, "alpha": 6, "dropout": 0})
    disturb(encoder)
    parameters = dict(encoder.named_parameters())
    a, b = (
        next(p for key, p in parameters.items() if "layer.1.attention.self.value" in key and part in key).detach()
        for part in ("lora_A", "lora_B")
    )
    change = apply_delta(found.weights, method.arrays(encoder))[name] - found.weights[name]
    np.testing.assert_allclose(change, 3 * (b @ a).numpy(), atol=1e-5)
    assert np.linalg.matrix_rank(change, tol=1e-4) == 2


def test_a_bottleneck_adds_what_two_thin_layers_make_of_the_output(base: Path) -> None:
    encoder, _ = attached(base, {"name": "bottleneck", "width": 8})
    disturb(encoder)
    width, layers = encoder.config.hidden_size, encoder.config.num_hidden_layers
    trained = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    assert trained == layers * 2 * (2 * width * 8 + width + 8)
    adapted, read = encoder.encoder.layer[0].output.dense, torch.randn(3, encoder.config.intermediate_size)
    down, up = adapted.adapter["down"], adapted.adapter["up"]
    given = read @ adapted.weight.T + adapted.bias
    inner = nn.functional.gelu(given @ down.weight.T + down.bias)
    torch.testing.assert_close(adapted(read), given + inner @ up.weight.T + up.bias)


def test_a_prefix_of_a_words_keys_and_values_is_read_as_that_word_before_the_text(base: Path) -> None:
    encoder, _ = attached(base, {"name": "prefix", "tokens": 1})
    bert, word = plain(base), 17
    with torch.no_grad():
        embedded = bert.embeddings(input_ids=torch.tensor([[word]]))[0]
        own, first = encoder.encoder.layer[0].attention.self, bert.encoder.layer[0].attention.self
        own.prefix_key.copy_(first.key(embedded))
        own.prefix_value.copy_(first.value(embedded))
        states = encoder(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states[1]
        known = bert(**with_word(word), output_hidden_states=True).hidden_states[1][:, 1:]
    torch.testing.assert_close(states[MASK.bool()], known[MASK.bool()], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["prompt", "p_tuning"])
def test_a_learned_token_that_is_a_word_is_read_as_that_word_before_the_text(base: Path, name: str) -> None:
    bert, word = plain(base), 17
    encoder, method = attached(base, {"name": name, "tokens": 1})
    vector = bert.embeddings.word_embeddings.weight[word].detach()
    disturb(encoder)
    assert list(method.arrays(encoder)) == ["added/embeddings.virtual"], "the network of P-tuning is not kept"
    method.restore(encoder, {"added/embeddings.virtual": vector[None].numpy()})
    with torch.no_grad():
        states = encoder(input_ids=IDS, attention_mask=MASK).last_hidden_state
        known = bert(**with_word(word)).last_hidden_state[:, 1:]
    torch.testing.assert_close(states[MASK.bool()], known[MASK.bool()], atol=1e-5, rtol=1e-5)


def test_p_tuning_moves_its_tokens_by_what_a_network_makes_of_them(base: Path) -> None:
    encoder, method = attached(base, {"name": "p_tuning", "tokens": 2})
    disturb(encoder)
    made = encoder.embeddings.parametrizations.virtual
    read, (first, _, last) = made.original.detach(), made[0].layers
    inner = torch.relu(read @ first.weight.T + first.bias)
    known = (read + inner @ last.weight.T + last.bias).detach().numpy()
    np.testing.assert_allclose(method.arrays(encoder)["added/embeddings.virtual"], known, atol=1e-6)


def test_a_mix_reads_the_layer_that_has_the_signal() -> None:
    torch.manual_seed(0)
    config = BertConfig(hidden_size=8, num_hidden_layers=3, num_attention_heads=2, hidden_dropout_prob=0.0)
    head = FormedHead(config, 2, HeadForm(layers="mix"))
    layers = torch.randn(256, 4, 8)  # the embeddings and three layers
    labels = (layers[:, 2, 0] > 0).long()
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(150):
        nn.functional.cross_entropy(head(head.read(layers)), labels).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert head.mix is not None
    shares = head.mix.shares.tolist()
    assert shares[2] > 0.5
    assert sum(shares) == pytest.approx(1)


def optimised(method: str, steps: int, decay: float = 0.0) -> tuple[nn.Parameter, dict[str, Any], torch.Tensor]:
    """Take steps along one gradient at a rate of 0.1; return the weight, what the optimiser holds of it, and the gradient."""
    weight, gradient = nn.Parameter(torch.ones(3, 5)), torch.arange(15.0).reshape(3, 5)
    optimiser = make_torch_optimiser([("encoder", [weight], 0.1)], decay, method)
    for _ in range(steps):
        weight.grad = gradient.clone()
        optimiser.step()
    return weight, optimiser.state[weight], gradient


def test_sgd_goes_on_with_nine_tenths_of_its_last_step_and_decay_pulls_to_zero() -> None:
    weight, _, gradient = optimised("sgd", steps=2)
    torch.testing.assert_close(weight.data, 1 - 0.1 * (1 + MOMENTUM + 1) * gradient)
    weight, _, gradient = optimised("sgd", steps=1, decay=0.5)
    torch.testing.assert_close(weight.data, 1 - 0.1 * (gradient + 0.5))


def test_adafactor_holds_a_row_and_a_column_of_each_weight_and_steps_by_its_size() -> None:
    weight, held, gradient = optimised("adafactor", steps=1)
    sizes = {name: tuple(each.shape) for name, each in held.items() if name != "step"}
    assert sizes == {"row_var": (3, 1), "col_var": (1, 5)}
    big = nn.Parameter(torch.full((3, 5), 100.0))
    optimiser = make_torch_optimiser([("encoder", [big], 0.1)], 0.0, "adafactor")
    big.grad = gradient.clone()
    optimiser.step()
    moved, moved_big = (1 - weight.data).norm(), (100 - big.data).norm()
    assert moved_big / moved == pytest.approx(100, rel=1e-3)
