"""Which layers the heads of a model read: the learned shares of heads that mix them. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from ...schemas.manifest import ModelManifest


class LayerShares(NamedTuple):
    """`shares` has a number for each column, by task: the gate of the embeddings and of each layer, 1 together."""

    columns: list[str]
    shares: Mapping[str, list[float]]


def read_layer_shares(manifest: ModelManifest) -> LayerShares | None:
    """Return the shares of the tasks whose heads mix layers; None where none does."""
    found = {spec.name: spec.head.shares for spec in manifest.tasks if spec.head and spec.head.shares}
    if not found:
        return None
    layers = max(map(len, found.values())) - 1
    return LayerShares(["embeddings", *(str(layer) for layer in range(1, layers + 1))], found)


def table_rows(found: LayerShares) -> list[list[str]]:
    """Return a row for each task: its name, and the shares in per cent."""
    return [[task, *(f"{100 * share:.1f} %" for share in shares)] for task, shares in found.shares.items()]
