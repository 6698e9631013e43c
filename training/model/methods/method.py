"""What a method of parameter-efficient training is asked."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ....schemas.manifest import EncoderSpec
from ...kinds.replies.decoder import ReplyDecoder

if TYPE_CHECKING:
    from transformers import BertModel

Arrays = dict[str, NDArray[Any]]
_WITHOUT_DECAY: Final = "without_decay"
ADAPTER: Final = "default"
"""The name that PEFT gives to what it puts in."""


class Method:
    """Trains something around an encoder. What it has trained is kept as the tensors of a delta (`runtime.model.delta` lists
    their forms); applied to the encoder's weights these are what is exported.
    """

    def extend(self, spec: EncoderSpec) -> EncoderSpec:
        """Return the spec of the encoder with what is trained: with the parts of its graph that are new, if any."""
        return spec

    def attach(self, encoder: "BertModel") -> None:
        """Put what is trained into the encoder, in place; everything else in it is frozen."""
        raise NotImplementedError

    def attach_to_decoder(self, decoder: ReplyDecoder) -> None:
        """Do the same to a decoder that begins as layers of the encoder. Without a word of it the decoder is trained whole."""

    def arrays(self, encoder: "BertModel") -> Arrays:
        """Return what was trained as the tensors of a delta, by their names in it, copied."""
        raise NotImplementedError

    def restore(self, encoder: "BertModel", arrays: Mapping[str, NDArray[Any]]) -> None:
        """Put back what `arrays` returned; other names are passed over."""
        raise NotImplementedError

    def begin(self, steps: int) -> None:
        """Hear how many steps the training has, before the first one and before `load_state`."""

    def penalty(self) -> Tensor | None:
        """Return what is added to the loss of a step; None where there is nothing."""
        return None

    def after_step(self, step: int) -> None:
        """Learn from a step that the optimiser has taken, the first is 1; the gradients are still there."""

    def state_dict(self) -> dict[str, Any]:
        """Return what is held beside trained parameters, as JSON."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that are held beside trained parameters, by name."""
        return {}

    def load_state(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Hold what `state_dict` and `tensors` returned."""


def adapted(module: nn.Module, attribute: str) -> Iterator[tuple[str, Any]]:
    """Yield the layers that PEFT put in, which have this attribute, by the names that they replace."""
    return ((name, part) for name, part in module.named_modules() if hasattr(part, attribute))


def without_decay(parameter: nn.Parameter) -> None:
    """Let no weight decay pull this parameter towards zero."""
    setattr(parameter, _WITHOUT_DECAY, True)


def is_without_decay(parameter: nn.Parameter) -> bool:
    """Return whether it was said of the parameter."""
    return hasattr(parameter, _WITHOUT_DECAY)


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a copy in float32."""
    found: NDArray[Any] = tensor.detach().float().cpu().numpy().copy()
    return found


def copy_into(parameter: Tensor, array: NDArray[Any]) -> None:
    """Write an array into a parameter."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(array))
