"""Whether two models answer alike."""

from tiny_training import rows

from murmura.runtime.model.model import Model
from murmura.training.export.export import served_logits
from murmura.training.export.parity import worst_difference

TEXTS = [row["text"] for row in rows(30, 5)]


def assert_same_answers(first: Model, second: Model, *, within: float) -> None:
    for name, spec in first.tasks.items():
        a, b = (served_logits(model, spec, TEXTS) for model in (first, second))
        gap, alike = worst_difference(a, b, spec)
        assert gap <= within, name
        assert alike, name
