"""The messages with known answers that the desk is asked before and after retraining."""

from ..stage.exam import Source
from .place import LEARN, ROWS

_PRODUCT, _DESK = LEARN / "product-heldout.jsonl", LEARN / "desk-messages.jsonl"
NEW_PRODUCT, NEW_QUEUE = "new product", "loans"
QUICK_PART = 3
"""A quick run asks one of so many of the questions about what the desk knew before; the gate compares all."""
SOURCES = (
    Source("intent", NEW_PRODUCT, _PRODUCT, field="intent"),
    Source("queue", NEW_PRODUCT, _PRODUCT, label=NEW_QUEUE),
    Source("intent", "the desk's", _DESK, field="intent"),
    Source("queue", "the desk's", ROWS / "report-messages.jsonl", field="queue"),
    Source("sentiment", "the desk's", _DESK, field="sentiment"),
    Source("entities", "the desk's", LEARN / "desk-entities.jsonl", field="slots"),
)
