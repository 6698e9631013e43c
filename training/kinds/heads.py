"""The one head that all kinds of today share."""

from torch import nn


def linear_head(width: int, labels: int) -> nn.Linear:
    """Make a linear layer [labels, width], drawn as BERT draws its own (normal, 0.02)."""
    head = nn.Linear(width, labels)
    nn.init.normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head
