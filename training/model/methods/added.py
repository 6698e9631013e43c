"""Methods that put parts into the encoder's graph: they cannot be merged into its weights, and cost time when it is served."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ....runtime.model.deltas.delta import ADDED
from ....schemas.manifest import EncoderSpec
from ...recipe.keys.methods import Bottleneck, Prefix, Prompt, PTuning
from .graph_parts import add_bottlenecks, add_prefix, add_virtual_tokens
from .method import Arrays, Method, copy_into, to_numpy, without_decay

if TYPE_CHECKING:
    from transformers import BertModel


class AddedParts(Method):
    """Trains parts of the graph alone."""

    def arrays(self, encoder: "BertModel") -> Arrays:
        return {f"{ADDED}{name}": to_numpy(each) for name, each in self.parts(encoder)}

    def restore(self, encoder: "BertModel", arrays: Mapping[str, NDArray[Any]]) -> None:
        for name, each in self.parts(encoder):
            copy_into(each, arrays[f"{ADDED}{name}"])

    def parts(self, encoder: "BertModel") -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors of the parts, by the names of weights."""
        raise NotImplementedError


class BottleneckMethod(AddedParts):
    """Adapters (Houlsby et al. 2019); Gaussian error linear units as in BERT, and an output of zero at the beginning."""

    def __init__(self, keys: Bottleneck) -> None:
        self.keys = keys

    def extend(self, spec: EncoderSpec) -> EncoderSpec:
        return spec.model_copy(update={"bottleneck": self.keys.width})

    def attach(self, encoder: "BertModel") -> None:
        encoder.requires_grad_(False)
        add_bottlenecks(encoder, self.keys.width)
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(".adapter." in name)

    def parts(self, encoder: "BertModel") -> Iterator[tuple[str, Tensor]]:
        return ((name, each) for name, each in encoder.named_parameters() if ".adapter." in name)


class PrefixMethod(AddedParts):
    """Learned keys and values (Li and Liang 2021). They begin as those of words that are drawn from the vocabulary."""

    def __init__(self, keys: Prefix) -> None:
        self.keys = keys

    def extend(self, spec: EncoderSpec) -> EncoderSpec:
        return spec.model_copy(update={"prefix": self.keys.tokens})

    def attach(self, encoder: "BertModel") -> None:
        encoder.requires_grad_(False)
        words = _draw_words(encoder, self.keys.tokens)
        training = encoder.training
        encoder.eval()
        with torch.no_grad():
            states = encoder(input_ids=words[None], output_hidden_states=True).hidden_states
            layers = [each.attention.self for each in encoder.encoder.layer]
            begins = [(layer.key(read[0]), layer.value(read[0])) for layer, read in zip(layers, states, strict=False)]
        encoder.train(training)
        add_prefix(encoder, self.keys.tokens)
        for layer, (key, value) in zip(layers, begins, strict=True):
            layer.prefix_key.data.copy_(key)
            layer.prefix_value.data.copy_(value)
        for _, parameter in self.parts(encoder):
            without_decay(parameter)

    def parts(self, encoder: "BertModel") -> Iterator[tuple[str, Tensor]]:
        return ((name, each) for name, each in encoder.named_parameters() if ".prefix_" in name)


class PromptMethod(AddedParts):
    """Learned tokens before a text (Lester et al. 2021). They begin as words that are drawn from the vocabulary."""

    def __init__(self, keys: Prompt) -> None:
        self.keys = keys

    def extend(self, spec: EncoderSpec) -> EncoderSpec:
        return spec.model_copy(update={"virtual_tokens": self.keys.tokens})

    def attach(self, encoder: "BertModel") -> None:
        encoder.requires_grad_(False)
        add_virtual_tokens(encoder, self.keys.tokens)
        words = encoder.embeddings.word_embeddings(_draw_words(encoder, self.keys.tokens))
        encoder.embeddings.virtual.data.copy_(words)
        without_decay(encoder.embeddings.virtual)

    def parts(self, encoder: "BertModel") -> Iterator[tuple[str, Tensor]]:
        yield "embeddings.virtual", encoder.embeddings.virtual


class PTuningMethod(PromptMethod):
    """The same, where tokens come out of a small network (Liu et al. 2021), which is not kept: they are."""

    def __init__(self, keys: PTuning) -> None:
        super().__init__(Prompt(name="prompt", tokens=keys.tokens))

    def attach(self, encoder: "BertModel") -> None:
        super().attach(encoder)
        width = encoder.config.hidden_size
        parametrize.register_parametrization(encoder.embeddings, "virtual", _PromptNetwork(width))

    def restore(self, encoder: "BertModel", arrays: Mapping[str, NDArray[Any]]) -> None:
        if parametrize.is_parametrized(encoder.embeddings, "virtual"):
            parametrize.remove_parametrizations(encoder.embeddings, "virtual")
        super().restore(encoder, arrays)


class _PromptNetwork(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """[P, H] -> [P, H]; it begins as what it reads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, read: Tensor) -> Tensor:
        found: Tensor = read + self.layers(read)
        return found


def _draw_words(encoder: "BertModel", count: int) -> Tensor:
    return torch.randint(len(encoder.embeddings.word_embeddings.weight), (count,))
