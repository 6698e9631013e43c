"""All metrics of a process that serves the shipped agents, for dashboards, alert rules and documents."""

from typing import Final

from ..runtime.observe.metrics import METRICS as OF_THE_RUNTIME
from .dialogue.metrics import METRICS as OF_DIALOGUE
from .feedback.metrics import METRICS as OF_FEEDBACK

METRICS: Final = (*OF_THE_RUNTIME, *OF_DIALOGUE, *OF_FEEDBACK)
