"""The permissions that each command needs on the broker, by command, operation and place. Pure.

The table in `docs/operations.md` has the same rows; a test compares both.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ..agent.agent import Agent
from ..agent.handler import Handler
from ..kafka.permissions import Kind, Need, Operation
from ..settings.experiments import name_holder_group
from ..settings.settings import Settings

_JOINED: Final = (
    "the topics of feedback",
    "the topics of requests",
    "the topics of results",
    "with reviews murmura.reviews",
)

REQUIRED: Final[Mapping[str, Mapping[Operation, Sequence[str]]]] = {
    "serve": {
        "READ": (
            "the agents' topics",
            "the handlers' changelogs",
            "murmura.retries",
            "the group",
            "with a store murmura.models",
            "with an experiment murmura.experiments",
            "with an experiment the topics of results",
            "with an experiment murmura.deadletters",
            "with an experiment the topics of feedback",
            "with an experiment murmura.reviews",
            "with an experiment the group of experiments",
        ),
        "WRITE": (
            "the agents' outputs",
            "murmura.deadletters",
            "murmura.retries",
            "murmura.events",
            "with reviews murmura.reviews",
            "with an experiment murmura.experiments",
            "with an experiment murmura.models",
            "with a shadow murmura.shadow",
            "with a shadow murmura.reviews",
        ),
    },
    "release": {"READ": ("murmura.models",), "WRITE": ("murmura.models", "murmura.events")},
    "status": {"READ": ("murmura.models", "murmura.experiments")},
    "show": {"READ": ("murmura.deadletters",)},
    "redrive": {
        "READ": ("murmura.deadletters",),
        "WRITE": ("murmura.deadletters", "murmura.retries"),
        "DESCRIBE": ("the transactional id murmura.deadletters.redrive",),
    },
    "put": {"READ": ("the agents' topics", "the group"), "WRITE": ("murmura.deadletters",)},
    "replay": {"READ": ("the topics of requests", "the topics of results")},
    "ingest": {"READ": _JOINED},
    "trainer": {
        "READ": (*_JOINED, "murmura.models"),
        "WRITE": ("murmura.training", "murmura.models", "murmura.reviews"),
    },
}
"""By command and operation: topics, groups and transactional ids. What is named `murmura.` has the prefix of the settings.

`release` is also all other commands that change releases and experiments, `status` `experiment report`, and `show`
`deadletters list`. WRITE on a transactional id includes DESCRIBE, which alone can be asked for without
fencing whoever uses the id.
"""

_EXPERIMENT: Final = "with an experiment "
_SHADOW: Final = "with a shadow "
_ASKING: Final = "with a shadow murmura.reviews"
_ACTING: Final = "with an experiment murmura.models"


def needs(
    settings: Settings, agents: Sequence[Agent | Handler], *, has_experiment: bool = False, has_shadow: bool = False
) -> list[Need]:
    """Return the permissions of all commands with these settings and agents.

    `has_experiment`: one of the models is in an experiment, whose rules act in the serving processes. `has_shadow`: one has a
    version that is only compared.
    """
    places = _Places(settings, agents, has_experiment, has_shadow)
    found = [
        Need(command, operation, kind, name)
        for command, rights in REQUIRED.items()
        for operation, wanted in rights.items()
        for place in wanted
        for kind, name in places.resolve(place)
    ]
    return list(dict.fromkeys(found))


class _Places:
    """Resolves the places of `REQUIRED` to names on the broker."""

    def __init__(
        self, settings: Settings, agents: Sequence[Agent | Handler], has_experiment: bool, has_shadow: bool
    ) -> None:
        self._settings, self._has_experiment, self._has_shadow = settings, has_experiment, has_shadow
        self._groups = {"the group": settings.group, "the group of experiments": name_holder_group(settings.group)}
        predicting = [agent for agent in agents if isinstance(agent, Agent)]
        judge = settings.agents.get("feedback")
        self._topics: dict[str, Iterable[str]] = {
            "the agents' topics": [topic for agent in agents for topic in agent.topics],
            "the agents' outputs": [topic for agent in agents for topic in agent.outputs],
            "the handlers' changelogs": [
                topic for agent in agents if isinstance(agent, Handler) for topic in agent.changelogs
            ],
            "the topics of requests": [topic for agent in predicting if agent.output for topic in agent.topics],
            "the topics of results": [agent.output for agent in predicting if agent.output],
            "the topics of feedback": (judge and judge.topics) or [self._name("murmura.feedback")],
        }

    def resolve(self, place: str) -> list[tuple[Kind, str]]:
        if not self._applies(place):
            return []
        place = place.removeprefix(_EXPERIMENT)
        if place in self._groups:
            return [("group", self._groups[place])]
        if place.startswith("the transactional id "):
            return [("transactional id", self._name(place.rpartition(" ")[2]))]
        names = self._topics.get(place) or ([] if place in self._topics else [self._name(place.rpartition(" ")[2])])
        return [("topic", name) for name in sorted(set(names))]

    def _applies(self, place: str) -> bool:
        """Return whether the condition of a place holds."""
        if place.startswith("with a store "):
            return self._settings.has_store
        if place.startswith("with reviews "):
            return self._settings.reviews.are_sent
        if place.startswith(_SHADOW):
            asks = place != _ASKING or self._settings.reviews.disagreements_per_minute > 0
            return self._has_shadow and asks
        if place == _ACTING and not self._settings.experiments.act:
            return False
        return self._has_experiment or not place.startswith(_EXPERIMENT)

    def _name(self, topic: str) -> str:
        return self._settings.prefix + topic.removeprefix("murmura")
