"""Dialogue: answers the turns of each conversation in order, by a policy, and hands over to people."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from ...runtime.agent.handler import Context, Handler, LoadedModel, Predicts, Restore
from ...runtime.errors import Closed, MurmuraError, RecordError, SetupError
from ...runtime.experiments.conversation_side import choose_conversation_side
from ...runtime.experiments.unit_assignment import RunningExperiment
from ...runtime.field_paths import FieldPaths
from ...runtime.observe.logs import get_logger
from ...runtime.settings.settings import Settings
from ...runtime.wire.message import Publish, Record
from ...runtime.wire.request import read_request
from ...schemas.deadletter import DeadLetterReason as Reason
from ...schemas.dialogue import (
    CONVERSATION_ID_BYTES,
    HAND_OVER_TYPE,
    REPLY_TYPE,
    ConversationSide,
    ConversationState,
)
from ...schemas.envelope import CAUSE, CE_ID, REQUEST_ID
from ...schemas.ids import prediction_id
from ...schemas.manifest import ModelManifest
from ...schemas.release import GeneratedReplies
from ...schemas.result import Source
from .answering import KnowledgeAnswers
from .conversations import Conversations, Kept, Place
from .events import Headers, event_headers
from .failures import PartFailures
from .metrics import DialogueMetrics
from .options import DialogueOptions
from .policy.policy_file import PolicyFile, check_against_model, check_intents, check_topics, load_policy
from .replies import ReplyWriter
from .reviews import ReplyReviews
from .turn.changed_steps import bound_state, put_side
from .turn.step import ReceivedTurn, Step, classify_delivery, has_expired, replay_step
from .turn_answers import TurnAnswers

log = get_logger(__name__)

_REPLIES, _STATE, _HANDOFFS = range(3)
_OWN_TOPICS: Final = 3


class Dialogue(Handler):
    """Owns the conversations of the partitions that are assigned to this process.

    A turn's state, reply, actions and hand-over are sent together, and the turn is finished when all are acknowledged. With
    knowledge, or a policy that generates replies or has `people`, the state is acknowledged first.
    After a crash in between it is delivered again. If its state was written, the reply in the state is published again;
    otherwise the turn is answered again from the state before, with the same result (see `step`).
    """

    name = "dialogue"
    topics = ("murmura.dialogue.turns",)
    outputs: tuple[str, ...] = ("murmura.dialogue.replies", "murmura.dialogue.state", "murmura.handoffs")
    """Topics of replies, changelog and hand-overs, then those of the policy's actions."""
    options_model = DialogueOptions
    ordering = "key"

    def __init__(self, policy: Path | str | None = None, *, clock: Callable[[], float] = time.time) -> None:
        """`policy` overrides the one in the settings. `clock` returns seconds since 1970."""
        self._path = None if policy is None else Path(policy)
        self._clock = clock
        self.options = DialogueOptions()
        self._app = ""
        self._max_value_bytes = 0
        self._fields: Mapping[str, FieldPaths] = {}
        self._policy: PolicyFile | None = None
        self._writes_first = False
        self._answers: TurnAnswers | None = None
        self._knowledge: KnowledgeAnswers | None = None
        self._reviews: ReplyReviews | None = None
        self._metrics: DialogueMetrics | None = None
        self._restore: Restore | None = None
        self._experiment: Callable[[], RunningExperiment | None] = lambda: None
        self._counts: Mapping[str, int] = {}
        self._conversations = Conversations(0, 0)
        self._open: dict[int, tuple[Conversations, Place, list[Place]]] = {}
        """By `id` of the record: what to release when it is finished."""

    # -- start -------------------------------------------------------------------------------------------------------

    def configure(self, settings: Settings) -> None:
        if len(self.topics) != 1:
            raise SetupError(
                f"agent {self.name}: it reads {', '.join(self.topics)}; the turns of a conversation are ordered within "
                "one topic only: give it one"
            )
        self._app = settings.app
        self._max_value_bytes = settings.limits.max_value_bytes
        self._fields = settings.fields
        path = self._path or self.options.policy
        if path is None:
            raise SetupError(
                f"agent {self.name}: it has no policy: name a YAML file in agents.{self.name}.options.policy"
            )
        self._policy = load_policy(path)
        policy = self._policy.value
        if isinstance(off := self.options.generated_replies_off, list):
            check_intents(self._policy, off, f"agents.{self.name}.options.generated_replies_off", "`all` or ")
        overrides = settings.agents.get(self.name)
        own = (
            (overrides.output if overrides else None) or self.outputs[_REPLIES],
            self.options.state or self.outputs[_STATE],
            self.options.handoffs or self.outputs[_HANDOFFS],
        )
        check_topics(
            self._policy, dict(zip((*own, *self.topics), ("replies", "states", "hand-overs", "turns"), strict=True))
        )
        self.outputs, self.tasks = (*own, *policy.topics), policy.tasks
        self.reply_topic = own[_REPLIES]
        self.reply_constants, self.reply_expiry_ms = policy.constants, policy.expiry_ms
        self._knowledge = KnowledgeAnswers.from_options(self.options, policy)
        self._answers = TurnAnswers(policy, self._knowledge)
        # A second reading without names may fail and succeed when the turn comes again.
        self._writes_first = policy.generates or policy.people is not None or self._knowledge is not None
        self.changelogs = (own[_STATE],)
        self._conversations = self._make_conversations()

    def started(self, context: Context) -> None:
        self.check(context.engine.model.manifest)
        self._counts = context.partitions
        if (why := self._describe_partition_mismatch()) is not None:
            raise SetupError(why)
        assert self._policy is not None, "configure comes first"
        here = GeneratedReplies(off=self.options.generated_replies_off or [])
        released = context.generated_replies
        self._reviews = ReplyReviews.from_settings(context.settings, self._policy.value, context.metrics)
        self._restore, self._experiment = context.restore, context.experiment
        # After a longer pause another member may own the partitions and their states.
        self.freeze_s = context.settings.kafka.session_timeout_ms / 1000
        self._metrics = DialogueMetrics(context.metrics, lambda: len(self._conversations))
        failures = PartFailures(partial(self._metrics.count_failed_part, self.name))
        writer = ReplyWriter(
            self._policy.value, lambda intent: here.allows(intent) and released().allows(intent), failures
        )
        assert self._answers is not None, "configure comes first"
        self._answers.begin(writer, failures)

    def _describe_partition_mismatch(self) -> str | None:
        """Return an error message if the topic of turns and the changelog differ in their number of partitions."""
        (turns,), state, counts = self.topics, self.outputs[_STATE], self._counts
        if counts.get(turns) == counts.get(state):
            return None
        return (
            f"topic {turns} has {counts.get(turns)} partitions and its changelog {state} {counts.get(state)}: they must "
            f"have the same number; recreate the changelog, or name another in agents.{self.name}.options.state"
        )

    def check(self, manifest: ModelManifest) -> None:
        assert self._policy is not None, "configure comes first"
        check_against_model(self._policy, manifest.tasks, manifest.name)
        assert self._answers is not None, "configure comes first"
        self._answers.check(manifest)

    def prepare(self, model: LoadedModel) -> None:
        if self._knowledge is not None:
            self._knowledge.prepare(model)

    # -- assignment --------------------------------------------------------------------------------------------------

    async def assigned(self, partitions: frozenset[Any]) -> list[Publish]:
        """Restore the conversations. Returns states to write again, so that the changelog's last one is the newest."""
        conversations, late = self._make_conversations(), []
        if self._restore is not None and partitions:
            if (why := self._describe_partition_mismatch()) is not None:
                raise MurmuraError(why)  # the topic of turns got partitions meanwhile
            numbers = [partition.partition for partition in partitions]
            topic, most_s = self.outputs[_STATE], self.options.restore_timeout_s
            read = await self._restore(topic, numbers, conversations.restore, timeout_s=most_s)
            late = conversations.finish_restore(self._now())
            unreadable = conversations.unreadable + read.unreadable
            self._count_unreadable(unreadable)
            log.info(
                "conversations restored",
                agent=self.name,
                partitions=len(numbers),
                conversations=len(conversations),
                records=read.records,
                unreadable=unreadable,
                written_again=len(late),
                seconds=round(read.seconds, 3),
            )
        self._conversations = conversations
        return [
            Publish(self.outputs[_STATE], value, key, partition=number, essential=True) for (number, key), value in late
        ]

    def revoked(self) -> None:
        self._conversations = self._make_conversations()

    def _make_conversations(self) -> Conversations:
        assert self._policy is not None, "configure comes first"
        return Conversations(self.options.max_conversations, self._policy.value.expiry_ms)

    # -- turns -------------------------------------------------------------------------------------------------------

    async def handle(self, record: Record, engine: Predicts) -> Iterable[Publish]:
        turn = self._read_turn(record)
        conversations = self._conversations
        place = (record.partition, record.key or b"")
        with engine.untimed():  # until the broker has acknowledged the end of the one before
            kept = await conversations.enter(place)
        try:
            result, kind = await self._answer(turn, kept, engine)
            value = b""
            if result is not None:
                result, value = bound_state(result, turn)
            if self._conversations is not conversations:
                raise Closed("the partition was revoked meanwhile")
        except BaseException:
            conversations.leave(place)
            raise
        self._count(kind)
        if result is None:
            conversations.leave(place)
            return ()
        conversations.put(place, value, result.state.number, min(result.state.source.timestamp, self._now()))
        ended = conversations.take_ended(record.partition)
        self._open[id(record)] = conversations, place, ended
        return self._make_messages(turn, result, value, ended)

    def finished(self, record: Record) -> None:
        if (opened := self._open.pop(id(record), None)) is not None:
            conversations, place, ended = opened
            conversations.leave(place)
            conversations.mark_acknowledged(ended)

    def given_up(self, record: Record) -> None:
        if (opened := self._open.pop(id(record), None)) is not None:
            conversations, place, ended = opened
            conversations.give_up([place, *ended])

    def _read_turn(self, record: Record) -> ReceivedTurn:
        key = record.key
        if not key:
            raise RecordError(Reason.INVALID, "a turn needs a key: the id of its conversation")
        if len(key) > CONVERSATION_ID_BYTES:
            raise RecordError(
                Reason.INVALID, f"the key has {len(key)} bytes, at most {CONVERSATION_ID_BYTES} are an id"
            )
        try:
            conversation = key.decode()
        except UnicodeDecodeError:
            raise RecordError(Reason.INVALID, "the key, a conversation's id, is not UTF-8") from None
        request = read_request(record, self._max_value_bytes, fields=self._fields.get(record.topic))
        if request.text_pair is not None:
            raise RecordError(Reason.INVALID, "`text_pair` is given: a turn has one text")
        turn_id = prediction_id(self.name, request.source, request.request_id)
        timestamp = record.timestamp if record.timestamp >= 0 else self._now()
        source = Source(topic=record.topic, partition=record.partition, offset=record.offset, timestamp=timestamp)
        metadata = request.metadata or {}
        return ReceivedTurn(self.name, conversation, request.text, request.request_id, turn_id, source, metadata)

    async def _answer(self, turn: ReceivedTurn, kept: Kept | None, engine: Predicts) -> tuple[Step | None, str]:
        """Return the result of a turn (None for an older, already answered one) and the kind to count it as."""
        assert self._answers is not None, "configure comes first"
        deadline = asyncio.get_running_loop().time() + self.options.generate_within_s
        state = self._read_state(turn.conversation, kept)
        delivery = classify_delivery(state, turn)
        if delivery == "older":
            return None, "skipped"
        if delivery == "last" and state is not None:
            return replay_step(state, turn), "repeated"
        side = self._choose_side(state, turn)
        sided = engine.on_side("current" if side is None else side.variant)
        result = put_side(await self._answers.answer(state, turn, kept.number if kept else 0, sided, deadline), side)
        if self._metrics is not None:
            self._metrics.count_wording(self.name, result.reply.wording, result.reply.wording_reason)
        return result, result.reply.kind.value

    def _choose_side(self, state: ConversationState | None, turn: ReceivedTurn) -> ConversationSide | None:
        """Return the side of a running experiment that answers a turn."""
        assert self._policy is not None, "configure comes first"
        kept = None
        if state is not None and not has_expired(state.source.timestamp, self._policy.value, turn.source.timestamp):
            kept = state.side
        return choose_conversation_side(kept, self._experiment(), turn.conversation, turn.metadata)

    def _read_state(self, conversation: str, kept: Kept | None) -> ConversationState | None:
        if kept is None:
            return None
        try:
            state = ConversationState.model_validate_json(kept.value)
        except ValidationError:
            state = None
        if state is None or state.conversation != conversation or not state.turns:
            self._count_unreadable(1)
            return None
        return state

    # -- output ------------------------------------------------------------------------------------------------------

    def _make_messages(self, turn: ReceivedTurn, result: Step, value: bytes, ended: list[Place]) -> list[Publish]:
        """Return all records that a turn produces, its state first."""
        subject, partition = turn.request_id.encode(), turn.source.partition
        cause: Headers = ((REQUEST_ID, subject), (CAUSE, subject))
        replies, state, handoffs = self.outputs[:_OWN_TOPICS]
        key = turn.conversation
        messages = [
            # The words of a model depend on more than turns and predictions: they are written down before they are said, and
            # with them all others, so that a reply that comes again does not come behind its next one.
            Publish(state, value, key, cause, partition, essential=True, first=self._writes_first),
            self._make_event(replies, result.reply.model_dump(mode="json"), turn, REPLY_TYPE, cause),
        ]
        for number, action in enumerate(result.actions):
            # The id is the same when the action is published again, so that consumers can detect repetitions.
            headers = (*cause, (CE_ID, f"{turn.prediction_id}/{number}".encode()))
            messages.append(Publish(action.topic, action.value, key, headers))
        if result.handover is not None:
            handover = result.handover.model_dump(mode="json")
            messages.append(self._make_event(handoffs, handover, turn, HAND_OVER_TYPE, cause))
        if self._reviews is not None and (review := self._reviews.make(result, turn)) is not None:
            messages.append(review)
        messages += [Publish(state, None, ended_key, cause, number, essential=True) for number, ended_key in ended]
        return messages

    def _make_event(self, topic: str, value: dict[str, Any], turn: ReceivedTurn, type_: str, cause: Headers) -> Publish:
        headers = (*cause, *event_headers(self._app, type_, turn.prediction_id, turn.request_id))
        return Publish(
            topic, value, turn.conversation, headers, turn.source.partition if self._is_aligned(topic) else None
        )

    def _is_aligned(self, topic: str) -> bool:
        return self._counts.get(topic) == self._counts.get(self.topics[0])

    # -- time and metrics --------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _count(self, kind: str) -> None:
        if self._metrics is not None:
            self._metrics.count_turn(self.name, kind)

    def _count_unreadable(self, states: int) -> None:
        if states:
            log.error("conversations whose state cannot be read start anew", agent=self.name, conversations=states)
            if self._metrics is not None:
                self._metrics.count_unreadable(states)
