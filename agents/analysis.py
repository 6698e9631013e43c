"""Analysis: the entities of a text with their places, its sentiment, and any other task that is asked for, in one result."""

from ..runtime.agent.agent import Agent
from ..schemas.manifest import TaskSpec


def _entities_and_sentiment(task: TaskSpec) -> bool:
    return task.kind == "tagging" or task.name == "sentiment"


agent = Agent(
    name="analysis",
    topics=("murmura.analysis.requests",),
    output="murmura.analysis.results",
    by_default=_entities_and_sentiment,
)
