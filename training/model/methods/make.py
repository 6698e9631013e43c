"""From the recipe's name of a method to the method."""

from collections.abc import Callable
from typing import Any, Final

from ...recipe.keys.methods import AdaLora, Bottleneck, Dora, Ia3, Lora, MethodKeys, Prefix, Prompt, PTuning
from .adalora import AdaLoraMethod
from .added import BottleneckMethod, PrefixMethod, PromptMethod, PTuningMethod
from .dora import DoraMethod
from .ia3 import Ia3Method
from .lora import LoraMethod
from .method import Method

_MAKERS: Final[dict[type[MethodKeys], Callable[[Any], Method]]] = {
    Lora: LoraMethod,
    Dora: DoraMethod,
    AdaLora: AdaLoraMethod,
    Ia3: lambda _: Ia3Method(),
    Bottleneck: BottleneckMethod,
    Prefix: PrefixMethod,
    Prompt: PromptMethod,
    PTuning: PTuningMethod,
}


def make_method(keys: MethodKeys) -> Method:
    """Return the method of a recipe's keys."""
    return _MAKERS[type(keys)](keys)
