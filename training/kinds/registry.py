"""The kinds of tasks that can be trained: those of this package and of others, found by entry point."""

from typing import Final

from ...runtime.model.kinds.registry import Registry
from ...schemas.manifest import TaskSpec
from .kind import Kind

GROUP: Final = "murmura.training_kinds"
KINDS: Final[Registry[Kind]] = Registry(GROUP, "kind of task to train", lambda: Kind)
"""By the `kind` of a recipe's or a manifest's task."""


def kind_of(task: TaskSpec) -> Kind:
    """Return a task's kind. Raises SetupError if it is not installed."""
    return KINDS.get(task.kind)
