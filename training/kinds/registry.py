"""The kinds of tasks that can be trained: each is named by its serving half, and imported when it is first asked for."""

from importlib.metadata import EntryPoint
from typing import Final

from ...runtime.errors import SetupError
from ...runtime.model.kinds.registry import GROUP, Registry, load_plug_in
from ...runtime.model.kinds.registry import KINDS as SERVED
from ...schemas.manifest import TaskSpec
from .kind import Kind

WHAT: Final = "training half of the kind of task"


class TrainingHalves(Registry[Kind]):
    """What trains the installed kinds, by their names. Raises SetupError in one line for a half that cannot be loaded."""

    def _load(self, name: str) -> Kind:
        serving = SERVED.get(name)
        if EntryPoint.pattern.match(serving.training) is None:
            place = f"{type(serving).__module__}:{type(serving).__qualname__}"
            raise SetupError(
                f"the kind of task {name} cannot be trained: `training` of {place} is {serving.training!r}, "
                "expected what trains it, as package.module:Class"
            )
        return load_plug_in(EntryPoint(name, serving.training, GROUP), WHAT, self._base())


KINDS: Final[Registry[Kind]] = TrainingHalves(GROUP, "kind of task", lambda: Kind)
"""By the `kind` of a recipe's or a manifest's task."""


def kind_of(task: TaskSpec) -> Kind:
    """Return a task's kind. Raises SetupError if it is not installed or cannot be trained."""
    return KINDS.get(task.kind)
