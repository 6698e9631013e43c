"""Classification: the labels of a text, with abstention below the model's thresholds."""

from ..runtime.agent.agent import Agent
from ..runtime.model.kinds.forms import AnswerForm

agent = Agent(
    name="classification",
    topics=("murmura.classification.requests",),
    output="murmura.classification.results",
    forms=frozenset({AnswerForm.LABEL, AnswerForm.LABELS}),
)
