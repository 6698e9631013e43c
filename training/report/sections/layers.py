"""Which task reads which layer, as a picture: the gates of heads that mix layers."""

from functools import partial
from typing import Final

from ..layers import LayerShares, read_layer_shares, table_rows
from ..page_data import PageData
from ..plots import Grid, Plot, draw_grid
from ..section import Section, render

_TITLE: Final = "Which task reads which layer"


def make_layers(page: PageData) -> Section | None:
    found = read_layer_shares(page.manifest)
    if found is None:
        return None
    plots = [page.draw("layer-shares", partial(_draw, found))]
    note = "The learned share of the embeddings and of each layer in what a head reads; each row makes 100 %."
    columns = ["task", *found.columns]
    body = render(
        "table.html", columns=columns, rows=table_rows(found), words=1, plots=plots, notes=[note], label=_TITLE
    )
    return Section("layers", _TITLE, body)


def _draw(found: LayerShares) -> Plot:
    columns = ["emb.", *found.columns[1:]]
    values = [[*shares, *[None] * (len(columns) - len(shares))] for shares in found.shares.values()]
    most = max(max(shares) for shares in found.shares.values())
    return draw_grid("layer-shares", Grid([*found.shares], columns, values), title=_TITLE, most=most)
