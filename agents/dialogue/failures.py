"""What of an answer may fail without the turn: it is answered without that part, and the failure is logged and counted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from ...runtime.errors import Closed, DeviceFailed, describe_origin
from ...runtime.observe.logs import get_logger

log = get_logger(__name__)


class Part(StrEnum):
    """A part of an answer: the closed list, also a label of metrics."""

    PEOPLE = "people"
    """Reading a turn again without who it is about."""
    KNOWLEDGE = "knowledge"
    REPLY = "reply"
    """Wording the reply."""
    FILTER = "filter"
    """Looking for harm in what the model has worded."""


class PartFailures:
    """Ends failures at the part that they happen in."""

    def __init__(self, count: Callable[[Part], None] = lambda part: None) -> None:
        """`count` is called once a failure; the log limits its lines by itself."""
        self._count = count

    @contextmanager
    def contained(self, part: Part) -> Iterator[None]:
        """Leave the block where an error is raised in it, whatever its class.

        Cancellation, and the end of the engine or of its device, concern more than the turn: they are raised, the latter as
        Closed, so that the turn is delivered again.
        """
        try:
            yield
        except Closed:
            raise
        except Exception as error:
            if isinstance(error, DeviceFailed) and error.lost:
                raise Closed("the device is given up") from error
            log.error("a part of an answer failed; it is left out", part=part.value, why=describe_origin(error))
            self._count(part)
