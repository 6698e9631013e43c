"""Holds the replies of the exported graphs against those of torch."""

import logging
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ...runtime.errors import SetupError
from ...runtime.model.generated import Generated
from ...runtime.model.inputs import TextPair
from ...runtime.model.model import Model
from ..kinds.replies.decoder import END, Decoded, ReplyDecoder
from ..model.encoders import build_encoder
from ..model.padding import in_order, pad
from .parity import build_head

log = logging.getLogger(__name__)
MARGIN: Final = 1e-4
"""Two best logits that lie so close may be ordered otherwise by another order of additions; what follows is another reply."""


def prove_replies(model: Model, truth: Sequence[Decoded], task: str, pairs: Sequence[TextPair]) -> int:
    """Raise SetupError unless the model writes torch's replies, `truth`, piece by piece, and the same in another order of the rows.

    From a place on where torch's two best logits lie within MARGIN a reply may differ; returns how many do.
    """
    found = model.generate(pairs, task=task)
    if found != model.generate(pairs[::-1], task=task)[::-1]:
        raise SetupError(f"export failed: replies of task {task} change with the rows that are decoded beside them")
    differ = [at for at, (one, other) in enumerate(zip(truth, found, strict=True)) if _pieces_of(other) != one.pieces]
    for at in differ:
        place = _first_difference(truth[at].pieces, _pieces_of(found[at]))
        if not truth[at].margins[place] <= MARGIN:
            raise SetupError(
                f"export failed: the graphs and torch write other replies of task {task}, piece {place} of row {at}, where "
                f"torch's best logits differ by {truth[at].margins[place]:.2g}"
            )
    log.info("parity of %d replies of %s: %d differ, at best logits within %g", len(pairs), task, len(differ), MARGIN)
    return len(differ)


def torch_replies(
    model: Model, weights: dict[str, NDArray[Any]], task: str, pairs: Sequence[TextPair]
) -> list[Decoded]:
    """Return torch's greedy replies in fp32, from the ids that the model reads."""
    texts = [np.array(row.ids) for encoded in model.encode(pairs) for row in encoded.rows]
    encoder = build_encoder(model.manifest.encoder, weights, dropout=0.0).eval()
    decoder = build_head(model.manifest.task(task), encoder.config, weights)
    assert isinstance(decoder, ReplyDecoder)
    replies: dict[int, Decoded] = {}
    for rows in in_order(texts, 32):
        ids, mask = pad([texts[row] for row in rows])
        with torch.no_grad():
            states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        replies |= zip(rows, decoder.decode(states, mask), strict=True)
    return [replies[row] for row in range(len(texts))]


def _pieces_of(reply: Generated) -> list[int]:
    return [*reply.tokens, END] if reply.finish == "end" else [*reply.tokens]


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    return next(at for at, (a, b) in enumerate(zip([*one, -1], [*other, -2], strict=False)) if a != b)
