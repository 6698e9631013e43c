"""Which agents of this package answer a task when a request names none.

Training writes them into the manifest, so that no agent has to know a task by its name.
"""

from ...schemas.manifest import TaskSpec
from ..model.kinds.forms import AnswerForm
from ..model.kinds.registry import kind_of

CLASSIFICATION = "classification"
ANALYSIS = "analysis"
_BY_FORM = {
    AnswerForm.LABEL: [CLASSIFICATION],
    AnswerForm.LABELS: [CLASSIFICATION],
    AnswerForm.SPANS: [ANALYSIS],
}


def default_agents(task: TaskSpec) -> list[str] | None:
    """Return the agents for a task whose recipe lists none; None where its answers have no form that they know."""
    agents = _BY_FORM.get(kind_of(task).form)
    return None if agents is None else [*agents]


def listed_agents(task: TaskSpec) -> list[str] | None:
    """Return the agents that a manifest lists, or that it means without a list, as those of earlier versions have none.

    There a task called `sentiment` is analysed, too.
    """
    if task.default_for is not None:
        return task.default_for
    agents = default_agents(task)
    if task.name == "sentiment" and ANALYSIS not in (agents or ()):
        return [*(agents or ()), ANALYSIS]
    return agents
