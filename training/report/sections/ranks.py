"""Which weights a training with factors changed by how many: where the ranks differ, the task says which layers it needs."""

from collections.abc import Iterator, Mapping

from ..page_data import PageData
from ..section import Section, render


def make_ranks(page: PageData) -> Section | None:
    """Show the ranks by layer; None where there are none, or all are the same."""
    if len({*page.ranks.values()}) < 2:
        return None
    return Section(
        "ranks", "Ranks", render("facts.html", facts=[*describe_ranks(page.ranks, page.manifest.encoder.layers)])
    )


def describe_ranks(ranks: Mapping[str, int], layers: int) -> Iterator[tuple[str, str]]:
    """Yield a line for each layer: its weights with the rank that is left of each, 0 where nothing is.

    >>> dict(describe_ranks({"encoder.layer.0.output.dense.weight": 3}, 2))
    {'layer 0': 'output.dense 3', 'layer 1': 'output.dense 0'}
    """
    parts = dict.fromkeys(name.split(".", 3)[3] for name in sorted(ranks))
    for layer in range(layers):
        left = [(part, ranks.get(f"encoder.layer.{layer}.{part}", 0)) for part in parts]
        yield f"layer {layer}", ", ".join(f"{part.removesuffix('.weight')} {rank}" for part, rank in left)
