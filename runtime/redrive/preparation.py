"""What a redrive needs before it starts: its target and conditions, and a sender."""

from collections.abc import Callable, Sequence

from ..agent.agent import Agent
from ..agent.discovery import AGENTS, find_agents
from ..agent.handler import Handler
from ..agent.routes import apply_settings
from ..errors import SetupError
from ..installed import installed_points
from ..kafka.sending.transactional_sender import PlainSender, Sender, TransactionalSender
from ..kafka.topics import is_mock_cluster, require_topics
from ..settings.settings import Settings
from .rules import ORIGINAL, Redrive

RETRIES = "retries"


def find_known_agents(settings: Settings, own: Sequence[str] = ()) -> list[Agent | Handler]:
    """Return the installed agents and those of `own` (`module:attribute`), with the settings' overrides."""
    names = [point.name for point in installed_points(AGENTS)]
    found = find_agents([*names, *own], settings.prefix)
    return [apply_settings(agent, settings.agents.get(agent.name)) for agent in found]


async def make_rules(
    settings: Settings, to: str, known: Sequence[Agent | Handler], *, out_of_order: bool = False
) -> Redrive:
    """Return target and conditions. `to`: `retries`, `original` or a topic. Raises SetupError for a target that is none."""
    target = settings.retry_topic if to == RETRIES else to
    if target == settings.dead_letters:
        raise SetupError(f"--to {to}: dead letters are read from there")
    if target != ORIGINAL:
        await require_topics(settings.kafka, [target])
    ordered = [agent for agent in known if agent.ordering == "key"]
    return Redrive(
        settings.retry_topic,
        target,
        settings.app,
        agents=frozenset(agent.name for agent in known),
        ordered_topics=frozenset(topic for agent in ordered for topic in agent.topics),
        ordered_agents=frozenset(agent.name for agent in ordered),
        out_of_order=out_of_order,
        fields=settings.fields,
    )


async def supports_transactions(settings: Settings) -> bool:
    """Return whether the broker has transactions; the one in process has none."""
    return not await is_mock_cluster(settings.kafka)


def sender_factory(settings: Settings, *, transactions: bool) -> Callable[[], Sender]:
    """Return what makes the senders of a redrive. With transactions, a later redrive fences an earlier one."""
    if not transactions:
        return lambda: PlainSender(settings.kafka, settings.producer)
    name = f"{settings.dead_letters}.redrive"
    return lambda: TransactionalSender(settings.kafka, settings.producer, name)
