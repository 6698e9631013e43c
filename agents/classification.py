"""Classification: which of the model's labels a text has, with abstention where the model is not sure enough."""

from ..runtime.agent.agent import Agent

agent = Agent(
    name="classification",
    topics=("murmura.classification.requests",),
    output="murmura.classification.results",
    kinds=frozenset({"classification", "multi_label"}),
)
