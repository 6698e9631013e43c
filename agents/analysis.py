"""Analysis: the entities of a text with their offsets, its sentiment, and any other requested task, in one result."""

from ..runtime.agent.agent import Agent
from ..runtime.agent.default_agents import ANALYSIS, listed_agents
from ..schemas.manifest import TaskSpec


def _is_analysed(task: TaskSpec) -> bool:
    """Say whether a manifest means this agent where it lists none, as those of earlier versions do."""
    return ANALYSIS in (listed_agents(task) or ())


agent = Agent(
    name=ANALYSIS,
    topics=("murmura.analysis.requests",),
    output="murmura.analysis.results",
    by_default=_is_analysed,
)
