"""Options of `murmura suggest` that have no effect beside others: refused by name. Pure."""

from collections.abc import Collection, Iterator
from typing import Final

from .strategy import Strategy

_LIVE: Final = {
    "agents": "--agent",
    "latest": "--latest",
    "per_minute": "--per-minute",
    "bootstrap": "--bootstrap",
}
"""Of requests on Kafka, by the names of the command's parameters."""
_OF_FILE: Final = {"text": "--text", "label": "--label"}
_BY_RUN: Final = (Strategy.K_CENTRE, Strategy.DISAGREEMENT)
_DRAWN: Final = (*_BY_RUN, Strategy.RANDOM)
_JUDGED: Final = (Strategy.MARGIN, Strategy.ENTROPY, Strategy.DISAGREEMENT)


def find_idle_options(given: Collection[str], strategy: Strategy, *, live: bool) -> Iterator[str]:
    """Yield why each of the given options, by the names of the command's parameters, cannot act."""
    for name, option in (_OF_FILE if live else _LIVE).items():
        if name in given:
            yield f"{option} has no effect {'with' if live else 'without'} --live"
    for name, acts_with in (("run", _BY_RUN), ("sample", (Strategy.K_CENTRE,)), ("seed", _DRAWN), ("tokens", _JUDGED)):
        if name in given and strategy not in acts_with:
            yield f"--{name} has no effect with --strategy {strategy.value}; it acts with {_list_names(acts_with)}"


def _list_names(strategies: Collection[Strategy]) -> str:
    *first, last = [each.value for each in strategies]
    return f"{', '.join(first)} and {last}" if first else last
