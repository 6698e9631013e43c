"""What a person selects of the dead letters: read from a query or a form, and written back. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlencode

from ...runtime.wire.dead_letter_records import Selection
from ...schemas.deadletter import DeadLetterReason
from ..web.people import Refused

NAME_CHARACTERS = 249


@dataclass(frozen=True, slots=True)
class Filters:
    """Empty fields select all. `place`: one dead letter, as `PARTITION/OFFSET`."""

    reason: str = ""
    agent: str = ""
    topic: str = ""
    place: str = ""
    waiting: bool = False
    """Only those that were not sent again yet; for the list, a redrive leaves the others out itself."""

    @classmethod
    def read(cls, values: Mapping[str, object]) -> "Filters":
        """Read the fields of a query or a form. Raises Refused for what is none."""
        reason, agent, topic, place = (str(values.get(name) or "") for name in ("reason", "agent", "topic", "place"))
        if reason and reason not in set(DeadLetterReason):
            raise Refused(HTTPStatus.BAD_REQUEST, "There is no such reason of dead letters.")
        if max(len(agent), len(topic)) > NAME_CHARACTERS:
            raise Refused(HTTPStatus.BAD_REQUEST, "The name of an agent or topic is too long.")
        if place:
            read_place(place)
        return cls(reason, agent, topic, place, bool(values.get("waiting")))

    def selection(self, until: float | None = None) -> Selection:
        """Return what the runtime selects. `until`: only those given up before this Unix time (s)."""
        offsets = {}
        if self.place:
            partition, offset = read_place(self.place)
            offsets = {partition: (offset, offset + 1)}
        return Selection(
            reasons=(self.reason,) if self.reason else (),
            agents=(self.agent,) if self.agent else (),
            topics=(self.topic,) if self.topic else (),
            until=until,
            offsets=offsets,
        )

    def fields(self) -> dict[str, str]:
        """Return the fields that are set, by name."""
        named = {"reason": self.reason, "agent": self.agent, "topic": self.topic, "place": self.place}
        return {name: value for name, value in named.items() if value} | ({"waiting": "1"} if self.waiting else {})

    def query(self, **more: object) -> str:
        """Return them as the query of a URL, with `?`; empty without any."""
        fields = self.fields() | {name: str(value) for name, value in more.items()}
        return f"?{urlencode(fields)}" if fields else ""


def read_place(text: str) -> tuple[int, int]:
    """Return partition and offset of `PARTITION/OFFSET`. Raises Refused."""
    partition, slash, offset = text.partition("/")
    if not slash or not all(each.isascii() and each.isdecimal() and len(each) <= 18 for each in (partition, offset)):
        raise Refused(HTTPStatus.BAD_REQUEST, "Expected the place of a dead letter as PARTITION/OFFSET.")
    return int(partition), int(offset)
