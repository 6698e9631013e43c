"""The replies that are decoded between forward passes: a lane for each task that generates, of each loaded model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import DeviceFailed, ModelFailed
from ...model.generated import Generated
from ...model.kinds.generation import make_output
from ...model.replies.reply_decoder import ReplyDecoder
from ...model.replies.reply_generator import ReplyGenerator
from ...model.replies.slot_table import Memory
from .entry import Entry
from .version_queue import VersionTerms


class StepResult(NamedTuple):
    """The result of a step. Created in a thread, applied on the loop."""

    ended: Sequence[tuple[Entry, Generated | ModelFailed]] = ()
    joined: Sequence[Entry] = ()
    """The entries whose replies began with this step."""
    rows: int = 0
    seconds: float = 0.0
    fault: DeviceFailed | None = None
    """The device failed. Without `again` the step has changed nothing and can be repeated."""
    again: Sequence[Entry] = ()
    """Entries to begin again with a forward pass, once the device answers."""


class ReplyLane:
    """The replies of one task of one model. Used on the event loop; only `run_step` is called in a thread, once at a time."""

    def __init__(self, model: Any, decoder: ReplyDecoder, terms: VersionTerms) -> None:
        self.model, self.task, self.terms = model, decoder.task.name, terms
        self.claimed = False
        """Whether a thread runs a step of it, or a step of it is held because the device fails."""
        self.in_thread = False
        self.queued_tokens = 0
        """Tokens of the texts whose replies have not begun. Only these are many: rows are limited."""
        self._decoder = decoder
        self._generator = ReplyGenerator[Entry](decoder, max_rows=terms.reply_rows)
        self._entries: dict[Entry, bool] = {}
        """The entries that wait for this reply, and whether it has begun."""
        self._arrived: list[tuple[Entry, Memory]] = []

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._entries

    @property
    def entries(self) -> list[Entry]:
        return [*self._entries]

    @property
    def queued_rows(self) -> int:
        """Number of replies that have not begun."""
        return sum(not begun for begun in self._entries.values())

    def add(self, entry: Entry, memory: Memory) -> None:
        """Let an entry wait for its reply."""
        self._entries[entry] = False
        self._arrived.append((entry, memory))
        self._count()

    def drop(self, entry: Entry) -> None:
        """Forget an entry; the next step leaves it out."""
        self._entries.pop(entry, None)
        self._count()

    def prepare(self) -> bool:
        """Free the rows of replies that nobody waits for, and let new ones wait for a row; False when there are none."""
        for entry in [entry for entry in self._entries if entry.cancelled]:
            self.drop(entry)
        for entry in [key for key in self._generator.keys if key not in self._entries]:
            self._generator.cancel(entry)
        for entry, memory in self._arrived:
            if entry in self._entries:
                asked = entry.reply
                forbidden = None if asked is None else self._decoder.forbid(asked.slots, asked.is_forbidden)
                self._generator.add(entry, memory, forbidden)
        self._arrived.clear()
        return not self._generator.idle

    def run_step(self, *, apart: bool = False) -> StepResult:
        """Add a piece to each reply. In a thread; raises like `ReplyDecoder.step`."""
        ended = self._generator.step(apart=apart)
        return StepResult(ended, self._generator.joined, self._generator.live + len(ended))

    def finish(self, result: StepResult) -> list[tuple[Entry, Generated | ModelFailed]]:
        """Apply the result of a step; returns the replies that have ended or failed, with their entries."""
        for entry in result.joined:
            if entry in self._entries:
                self._entries[entry] = True
            if entry.place is not None:
                entry.place.leave()
        ended = [(entry, reply) for entry, reply in result.ended if entry in self._entries]
        for entry in (*(entry for entry, _ in ended), *result.again):
            self.drop(entry)
        self._count()
        return ended

    def _count(self) -> None:
        self.queued_tokens = sum(entry.encoded.tokens for entry, begun in self._entries.items() if not begun)


class ReplyLanes:
    """All lanes of a batcher. Used on its event loop.

    Invariant: an entry leaves once, with all its replies or with the error of one.
    """

    def __init__(self) -> None:
        self._lanes: dict[tuple[int, str], ReplyLane] = {}
        """By the model's identity and the task, the one with the latest step last. A lane keeps its model alive."""

    @property
    def queued_tokens(self) -> int:
        """Tokens of the texts whose replies have not begun."""
        return sum(lane.queued_tokens for lane in self._lanes.values())

    @property
    def queued_rows(self) -> int:
        """Number of replies that have not begun."""
        return sum(lane.queued_rows for lane in self._lanes.values())

    @property
    def is_empty(self) -> bool:
        """Whether no reply waits or is being decoded."""
        return not any(lane.claimed or lane.entries for lane in self._lanes.values())

    def queued(self, model: Any) -> tuple[int, int]:
        """Return tokens and number of a version's texts whose replies have not begun."""
        own = [lane for lane in self._lanes.values() if lane.model is model]
        return sum(lane.queued_tokens for lane in own), sum(lane.queued_rows for lane in own)

    def begin(self, model: Any, terms: VersionTerms, entries: Iterable[tuple[Entry, Mapping[str, Memory]]]) -> None:
        """Let entries that have been through a forward pass of a model with these terms wait for their replies."""
        for entry, memories in entries:
            if entry.cancelled:
                continue
            for task, memory in memories.items():
                lane = self._lanes.get((id(model), task))
                if lane is None:
                    lane = ReplyLane(model, model.decoders[task], terms)
                    self._lanes[id(model), task] = lane
                if entry not in lane:
                    entry.replies_left += 1
                    lane.add(entry, memory)

    def claim_ready(self) -> ReplyLane | None:
        """Return the lane whose step comes next, and claim it; None where no reply can go on."""
        for key, lane in self._lanes.items():
            if not lane.claimed and lane.prepare():
                lane.claimed = True
                self._lanes[key] = self._lanes.pop(key)
                return lane
        return None

    def finish(
        self, lane: ReplyLane, result: StepResult
    ) -> tuple[list[tuple[Entry, Generated | ModelFailed]], list[Entry]]:
        """Apply the result of a step; returns the replies that have ended or failed, and the entries to begin again.

        An entry has all its outputs, or an error, when its `replies_left` is 0.
        """
        again = [entry for entry in result.again if entry in lane]  # others have left meanwhile
        ended = lane.finish(result)
        for entry, reply in ended:
            if isinstance(reply, ModelFailed):
                entry.error, entry.outputs, entry.replies_left = reply, None, 0
                for other in self._lanes.values():
                    other.drop(entry)
            elif entry.outputs is not None:
                entry.replies_left -= 1
                read, manifest = entry.encoded.rows[-1], lane.model.manifest
                model = manifest.name, manifest.version
                entry.generated = reply._replace(truncated=read.truncated, cut=read.cut, model=model)
                entry.outputs[lane.task] = dict(make_output(reply))
        for entry in again:
            _begin_anew(entry)
            for other in self._lanes.values():
                other.drop(entry)
        return ended, [entry for entry in again if not entry.cancelled]

    def retire(self, is_loaded: Callable[[Any], bool]) -> None:
        """Free the lanes of models that are not loaded any more and have no reply left."""
        for key, lane in [*self._lanes.items()]:
            if not lane.claimed and not lane.entries and not is_loaded(lane.model):
                del self._lanes[key]

    def drain(self, *, running: bool, model: Any = ...) -> list[Entry]:
        """Remove and return the entries whose replies have not ended; those of steps that run only if `running`.

        `model`: only those of a version.
        """
        entries: dict[Entry, None] = {}
        for key, lane in [*self._lanes.items()]:
            if (running or not lane.in_thread) and (model is ... or lane.model is model):
                entries |= dict.fromkeys(lane.entries)
                del self._lanes[key]
                for entry in lane.entries:
                    lane.drop(entry)  # a step that runs ends without it
        left = [entry for entry in entries if not entry.cancelled]
        for entry in left:
            _begin_anew(entry)
        return left


def _begin_anew(entry: Entry) -> None:
    entry.replies_left, entry.outputs = 0, None
    if entry.place is not None:
        entry.place.retake()
