"""What was trained around the encoder, by which settings, and what became of it at the export. Pure."""

from collections.abc import Iterator
from math import prod
from typing import Any, Final

from ...runtime.model.folders.weights import weight_shapes
from ...runtime.model.kinds.registry import KINDS
from ..recipe.keys.methods import MethodKeys
from ..recipe.recipe import Recipe
from .made import Made
from .part import Fact, Group, Part

_TITLES: Final = {
    "lora": "low-rank factors beside the encoder's weights (Hu et al. 2021)",
    "dora": "low-rank factors and lengths of rows beside the encoder's weights (Liu et al. 2024)",
    "adalora": "low-rank factors whose ranks move to where they count (Zhang et al. 2023)",
    "ia3": "scales of keys, values and feed-forward layers (Liu et al. 2022)",
    "bottleneck": "adapters behind both parts of each layer (Houlsby et al. 2019)",
    "prefix": "learned keys and values before those of a text in each layer (Li and Liang 2021)",
    "prompt": "learned tokens before a text (Lester et al. 2021)",
    "p_tuning": "learned tokens before a text, out of a small network (Liu et al. 2021)",
}
_MERGED: Final = "merged into the encoder's weights: served at the cost of the plain encoder"
_ASSEMBLED: Final = (
    "merged into the encoder's weights where the delta is assembled: served at the cost of the plain encoder then"
)
_IN_GRAPH: Final = "a part of the graph, beside the encoder's own weights"


def describe_method(made: Made) -> Part | None:
    """Return what is said of the method; None where the encoder's own weights were trained, or nothing of it."""
    recipe, record = made.recipe, made.record
    keys = recipe.around_encoder if recipe is not None else None
    if recipe is None or keys is None or recipe.encoder.frozen:
        return None
    if record is not None and record.trained is not None and not record.trained.encoder:
        return None  # its tasks were added to a model, whose encoder stays as it is
    facts = [("method", f"{recipe.name_of_method}: {_TITLES[recipe.name_of_method]}"), *_settings(recipe, keys)]
    return Part("method", "Around the encoder", [Group(facts=[*facts, *_trained(made), *_export(made, keys)])])


def _settings(recipe: Recipe, keys: MethodKeys) -> Iterator[Fact]:
    writes = any(KINDS.get(task.kind).generates for task in recipe.tasks.values())
    values: dict[str, Any] = {name: value for name, value in keys if name != "name"}
    if "alpha" in values and values["alpha"] is None:
        values["alpha"] = 2 * values.get("start_rank", values["rank"])
    if not writes:
        values.pop("decoder_rank", None)
    for name, value in values.items():
        yield name, ", ".join(value) if isinstance(value, tuple) else f"{value:g}"
    yield "encoder_lr", f"{recipe.encoder_lr:g}"


def _trained(made: Made) -> Iterator[Fact]:
    trained = made.record.trained if made.record is not None else None
    if trained is None:
        return
    plain = made.manifest.encoder.model_copy(update={"bottleneck": None, "prefix": None, "virtual_tokens": None, "masked_at": None})  # fmt: skip
    whole = sum(prod(shape) for shape in weight_shapes(plain, ()).values())
    share = f"{100 * trained.encoder / whole:.2g} % of the encoder's {whole:,}"
    yield "trained around the encoder", f"{trained.encoder:,} parameters, {share}"
    yield "trained in the heads", f"{trained.heads:,} parameters"


def _export(made: Made, keys: MethodKeys) -> Iterator[Fact]:
    is_delta = made.manifest.is_delta
    yield "in the model", _IN_GRAPH if not keys.merged else _ASSEMBLED if is_delta else _MERGED
    for entry in made.manifest.files:
        if entry.role == "delta":
            yield "delta", f"{entry.path}, {entry.bytes / 1e6:,.2f} MB"
