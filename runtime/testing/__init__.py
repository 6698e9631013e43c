"""Models, engines and a rehearsal without a broker, for tests of agents."""

from typing import TYPE_CHECKING, Any

from .fakes import (
    FakeEncoded,
    FakeEngine,
    FakeModel,
    ManualClock,
    abstained,
    classified,
    fake_manifest,
    labelled,
    tagged,
)
from .simulated_runner import SimulatedRunner

if TYPE_CHECKING:
    from .rehearsal import Answers, rehearse

__all__ = [
    "Answers",
    "FakeEncoded",
    "FakeEngine",
    "FakeModel",
    "ManualClock",
    "SimulatedRunner",
    "abstained",
    "classified",
    "fake_manifest",
    "labelled",
    "rehearse",
    "tagged",
]


def __getattr__(name: str) -> Any:
    if name not in {"Answers", "rehearse"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import rehearsal  # noqa: PLC0415  # the fakes need no Kafka

    return getattr(rehearsal, name)
