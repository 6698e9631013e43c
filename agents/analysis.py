"""Analysis: the entities of a text with their offsets, its sentiment, and any other requested task, in one result."""

from ..runtime.agent.agent import Agent
from ..runtime.model.kinds.forms import AnswerForm
from ..runtime.model.kinds.registry import kind_of
from ..schemas.manifest import TaskSpec


def _has_spans_or_is_sentiment(task: TaskSpec) -> bool:
    """Choose among the tasks that do not list the agents that answer them by default (`default_for`)."""
    return kind_of(task).form is AnswerForm.SPANS or task.name == "sentiment"


agent = Agent(
    name="analysis",
    topics=("murmura.analysis.requests",),
    output="murmura.analysis.results",
    by_default=_has_spans_or_is_sentiment,
)
