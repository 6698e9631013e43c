"""Makes the holder of a process's experiments from its parts."""

from collections.abc import Mapping, Sequence
from functools import partial

from ..agent.agent import Agent
from ..agent.handler import Handler
from ..observe.logs import get_logger
from ..observe.metrics import Metrics
from ..output.serving_events import ServingEvents
from ..settings.settings import Settings
from .holder import ExperimentHolder
from .log_reader import Decode
from .records import read_dead_letter, read_feedback, read_ratio, read_result, read_review

log = get_logger(__name__)


def make_holder(
    settings: Settings,
    agents: Sequence[Agent | Handler],
    models: Mapping[str, str],
    topics: Mapping[str, int],
    events: ServingEvents,
    metrics: Metrics,
) -> ExperimentHolder | None:
    """Return the holder; None without a topic of experiments.

    `models`: by agent, the name in the store of the model that it asks; agents without are left out. `topics`: those of the
    broker.
    """
    topic = f"{settings.prefix}.experiments"
    if topic not in topics:
        log.warning("no experiment is judged without its topic: `murmura topics --create` makes it", topic=topic)
        return None
    asking = [agent for agent in agents if agent.name in models]
    answers = {agent.output if isinstance(agent, Agent) else agent.reply_topic for agent in asking}
    decoders: dict[str, Decode] = {topic: read_result for topic in answers if topic is not None}
    model_of = {requests: models[agent.name] for agent in asking for requests in agent.topics}
    decoders[settings.dead_letters] = partial(read_dead_letter, models=model_of, agents=models, fields=settings.fields)
    decoders[f"{settings.prefix}.feedback"] = read_feedback
    decoders[f"{settings.prefix}.reviews"] = read_review
    if settings.experiments.ratios is not None:
        decoders[settings.experiments.ratios] = read_ratio
        if settings.experiments.ratios not in topics:
            log.warning(
                "no event of your own ratios is read before their topic is there", topic=settings.experiments.ratios
            )
    names = tuple(dict.fromkeys(models.values()))
    return ExperimentHolder(settings, names, decoders, events, metrics.experiments)
