"""Says how many units an hour an experiment is likely to get a value of its goal from, by the results of the latest hour."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from ....schemas.experiment import Measure, Rules
    from ...kafka.offset_ranges import OffsetRange
    from ...settings.settings import Settings

_HOUR_S: Final = 3600.0
_MOST_RESULTS: Final = 20_000
"""Where the hour has more, so many of the latest are read."""
_PATIENCE_S: Final = 20.0


class UnitRate(NamedTuple):
    """Units an hour with a value of the goal, and how that is known; None: it is not, and `why` says so."""

    per_hour: float | None
    why: str


def measure_unit_rate(settings: "Settings", name: str, unit: str, rules: "Rules") -> UnitRate:
    """Return the rate by the results of model `name` in the latest hour, of the topics of the default agents."""
    from ...errors import Closed, MurmuraError
    from ..until_signalled import run_cancellable

    goal = rules.goals[0]
    if goal.measure == "agreement" and goal.task is not None:
        return UnitRate(None, f"which units are asked about {goal.task} is drawn")
    asked = settings.reviews.random_share if goal.measure == "agreement" else 1.0
    if not asked:
        return UnitRate(None, "reviews.random_share is 0 in these settings")
    try:
        topics = list_topics(settings)
        counts = UnitCounts(name, unit, goal)
        hours = run_cancellable(lambda stop: _read(settings, topics, counts))
    except Closed:
        raise
    except MurmuraError as error:
        return UnitRate(None, f"the results of the latest hour cannot be read ({error})")
    if not counts.units:
        return UnitRate(None, f"{name} answered nothing in the latest hour in {', '.join(topics) or 'any topic'}")
    found = counts.units / hours
    part = "" if asked == 1.0 else f", {100 * asked:g} % of {found:,.0f}"
    return UnitRate(found * asked, f"by the results of the latest {60 * hours:.0f} minutes{part}")


class UnitCounts:
    """Counts the units of a model's results that have a value of a measure. Pure."""

    def __init__(self, name: str, unit: str, goal: "Measure") -> None:
        self._name, self._unit, self._goal = name, unit, goal
        self._found = set[str]()

    @property
    def units(self) -> int:
        return len(self._found)

    def add(self, records: Iterable[Any]) -> None:
        """Add records of results; others count nothing."""
        from ...experiment_holder.records import read_result
        from ...experiments.observations import find_unit
        from ...experiments.run import Answer

        of_all = self._goal.measure in ("agreement", "ratio")
        for record in records:
            read = read_result(record)
            if read is None or read.model != self._name or not isinstance(read.content, Answer):
                continue
            answer = read.content
            unit = find_unit(self._unit, answer.key, answer.conversation or answer.request_id, answer.metadata)
            if unit is not None and (of_all or self._goal.key in answer.counts):
                self._found.add(unit)


def list_topics(settings: "Settings") -> list[str]:
    """Return the topics of results and replies of the default agents."""
    from ...agent.agent import Agent
    from ...agent.discovery import find_agents
    from ...agent.routes import configure_agents

    agents = configure_agents(settings, find_agents((), settings.prefix))
    found = (agent.output if isinstance(agent, Agent) else agent.reply_topic for agent in agents)
    return sorted({topic for topic in found if topic is not None})


async def _read(settings: "Settings", topics: list[str], counts: UnitCounts) -> float:
    """Add the results of the latest hour, or the latest of them; returns how many hours these are."""
    from ...kafka import offset_ranges
    from ...kafka.topics import fetch_partition_counts
    from ...release.states import within

    async with within(_PATIENCE_S, ", ".join(topics)):
        existing = await fetch_partition_counts(settings.kafka)
        chosen = await offset_ranges.freeze(settings.kafka, [[topic for topic in topics if topic in existing]])
        hours, now = 1.0, time.time()
        latest = await offset_ranges.narrow(settings.kafka, chosen, now - _HOUR_S, None)
        if (results := _count(latest)) > _MOST_RESULTS:
            hours = _MOST_RESULTS / results
            latest = await offset_ranges.narrow(settings.kafka, latest, now - hours * _HOUR_S, None)
        await offset_ranges.read(settings.kafka, latest, lambda number, records: counts.add(records))
    return hours


def _count(ranges: "list[OffsetRange]") -> int:
    return sum(each.records for each in ranges)
