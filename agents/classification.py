"""Classification: the labels of a text, with abstention below the model's thresholds."""

from ..runtime.agent.agent import Agent

agent = Agent(
    name="classification",
    topics=("murmura.classification.requests",),
    output="murmura.classification.results",
    kinds=frozenset({"classification", "multi_label"}),
)
