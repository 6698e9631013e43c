"""Finds plug-ins by entry point, for example the kinds of tasks: those of this package and of others."""

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, Protocol, TypeVar

from pydantic import AfterValidator

from ....schemas.manifest import TaskSpec
from ...errors import SetupError
from ...installed import installed_points, search_again

if TYPE_CHECKING:
    from .kind import Kind

GROUP: Final = "murmura.kinds"


class Named(Protocol):
    @property
    def name(self) -> str: ...


P = TypeVar("P", bound=Named)


class Registry(Generic[P]):
    """The plug-ins of an entry point group by name. One is loaded when it is first asked for, and kept.

    An entry point names a class, of which one instance is made without arguments, or an instance. Raises SetupError in one
    line for a plug-in that cannot be loaded, and for a name that two packages use; others are not affected.
    """

    def __init__(self, group: str, what: str, base: Callable[[], type[P]]) -> None:
        """`what` names a plug-in in errors; `base` returns the class that plug-ins derive from."""
        self._group, self._what, self._base = group, what, base
        self._loaded: dict[str, P] = {}
        self._points: dict[str, list[EntryPoint]] | None = None

    def find(self, name: str) -> P | None:
        """Return a plug-in, or None if no installed package has one of this name."""
        found = self._loaded.get(name)
        if found is None and name in self._installed():
            found = self._loaded[name] = self._load(name)
        return found

    def get(self, name: str) -> P:
        """Return a plug-in. Raises SetupError that lists those installed if there is none of this name."""
        found = self.find(name)
        if found is None:
            there = ", ".join(self.names()) or "none: install this package again"
            raise SetupError(
                f"no {self._what} {name[:60]!r}: installed are {there}; another one comes with its package"
            )
        return found

    def names(self) -> list[str]:
        """Return the names of the installed plug-ins, sorted, without loading them."""
        return sorted(self._installed())

    def refresh(self) -> None:
        """Look for installed packages again."""
        search_again()
        self._points = None
        self._loaded.clear()

    def _installed(self) -> dict[str, list[EntryPoint]]:
        if self._points is None:
            points: dict[str, dict[str, EntryPoint]] = {}
            for point in installed_points(self._group):
                points.setdefault(point.name, {})[point.value] = point
            self._points = {name: [*different.values()] for name, different in points.items()}
        return self._points

    def _load(self, name: str) -> P:
        point, *others = self._installed()[name]
        if others:
            rivals = " and ".join(_origin(each) for each in (point, *others))
            raise SetupError(f"{self._what} {name} is installed twice: {rivals}; uninstall one of the packages")
        return load_plug_in(point, self._what, self._base())


def load_plug_in(point: EntryPoint, what: str, base: type[P]) -> P:
    """Load one plug-in. Raises SetupError in one line, for a class other than `base` and for another name, too."""
    who = f"{what} {point.name} ({_origin(point)})"
    try:
        loaded: Any = point.load()
        plug_in = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:  # whatever a package raises when it is imported
        problem = next(iter(str(error).splitlines()), "")[:200]
        raise SetupError(f"{who} cannot be loaded: {type(error).__name__}: {problem}") from error
    if not isinstance(plug_in, base):
        raise SetupError(f"{who} is a {_full_name(type(plug_in))}, expected a {_full_name(base)}")
    if plug_in.name != point.name:
        raise SetupError(f"{who} calls itself {plug_in.name!r}: name both the same")
    return plug_in


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _origin(point: EntryPoint) -> str:
    return point.value if point.dist is None else f"{point.value} of {point.dist.name}"


def _kind_class() -> "type[Kind]":
    # Not at the top: a command that only prints results starts without numpy.
    from .kind import Kind  # noqa: PLC0415

    return Kind


KINDS: Final["Registry[Kind]"] = Registry(GROUP, "kind of task", _kind_class)
"""Kinds of tasks, by the `kind` of a manifest's task and of an output."""


def kind_of(task: TaskSpec) -> "Kind":
    """Return a task's kind. Raises SetupError if it is not installed."""
    return KINDS.get(task.kind)


def generating_tasks(tasks: Iterable[TaskSpec]) -> list[TaskSpec]:
    """Return the tasks that a decoder answers."""
    return [task for task in tasks if kind_of(task).generates]


def _refuse_unknown(name: str) -> str:
    if name not in KINDS.names():
        raise ValueError(f"no such kind of task; installed are {', '.join(KINDS.names())}")
    return name


TaskKind = Annotated[str, AfterValidator(_refuse_unknown)]
"""For settings and recipes: the name of an installed kind."""


def find_kind(output: Mapping[str, Any]) -> "Kind | None":
    """Return the kind of an output; None if it is not installed."""
    return KINDS.find(output["kind"])
