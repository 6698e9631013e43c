"""Analysis: the entities of a text with their offsets, its sentiment, and any other requested task, in one result."""

from ..runtime.agent.agent import Agent
from ..schemas.manifest import TaskSpec


def _is_entity_or_sentiment(task: TaskSpec) -> bool:
    return task.kind == "tagging" or task.name == "sentiment"


agent = Agent(
    name="analysis",
    topics=("murmura.analysis.requests",),
    output="murmura.analysis.results",
    by_default=_is_entity_or_sentiment,
)
