"""Reads rows of a text and its labels."""

from .counts import RowLeftOut
from .example import Example
from .fields import read_labels, read_text, rename_labels
from .row import Row
from .rules import Rules


def read_labelled(row: Row, rules: Rules) -> Example | RowLeftOut:
    """Return the example of a row, with its labels in their order, under the names of `merge`."""
    text = read_text(row, rules)
    meta = row.without(rules.columns.text, rules.columns.label)
    if rules.label is not None:
        return Example(text, (rules.label,), place=row.place, meta=meta)
    labels, chosen = read_labels(row, rules), rules.reading.one_of
    if chosen is not None:
        labels = [label for label in labels if not chosen or label in chosen]
        if len(labels) != 1:
            return RowLeftOut.ONE_OF
    return Example(text, tuple(rename_labels(row, labels, rules.reading)), place=row.place, meta=meta)
