"""IA3 by PEFT (Liu et al. 2022): learned scales of keys, of values, and of what the feed-forward layers hold between their two parts.

They begin at one. Scales of what a layer gives belong to the rows of its weight and to its bias, those of what it reads to the
columns, so that they are merged exactly.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray
from torch import Tensor

from .method import ADAPTER, Arrays, Method, adapted, copy_into, to_numpy, without_decay

if TYPE_CHECKING:
    from transformers import BertModel

FEED_FORWARD: Final = r"encoder\.layer\.\d+\.output\.dense"
TARGETS: Final = rf"encoder\.layer\.\d+\.attention\.self\.(key|value)|{FEED_FORWARD}"


class Ia3Method(Method):
    """A number for each key, value and inner state of each layer."""

    def attach(self, encoder: "BertModel") -> None:
        from peft import IA3Config, inject_adapter_in_model  # noqa: PLC0415  (takes seconds)

        inject_adapter_in_model(IA3Config(target_modules=TARGETS, feedforward_modules=FEED_FORWARD), encoder)
        for _, scale, _ in _scales(encoder):
            without_decay(scale)

    def arrays(self, encoder: "BertModel") -> Arrays:
        found: Arrays = {}
        for name, scale, of_output in _scales(encoder):
            found[f"scale/{name}.weight"] = to_numpy(scale)
            if of_output:
                found[f"scale/{name}.bias"] = to_numpy(scale)[:, 0]
        return found

    def restore(self, encoder: "BertModel", arrays: Mapping[str, NDArray[Any]]) -> None:
        for name, scale, _ in _scales(encoder):
            copy_into(scale, arrays[f"scale/{name}.weight"])


def _scales(encoder: "BertModel") -> Iterator[tuple[str, Tensor, bool]]:
    """Yield the name of a layer, its scales [out, 1] or [1, in], and whether they are those of its output."""
    for name, part in adapted(encoder, "ia3_l"):
        yield name, part.ia3_l[ADAPTER], not part.is_feedforward
