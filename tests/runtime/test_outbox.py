"""What is sent for records, and what takes the place of a message that is refused; the publisher answers from a script."""

import asyncio
from collections import Counter

import pytest
from aiokafka.structs import ConsumerRecord

from murmura.runtime.errors import MurmuraError, RecordError, RecordRefused, RecordTooLarge, TopicRefused
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.output.dead_letter_gate import DeadLetterGate
from murmura.runtime.output.outbox import Outbox
from murmura.runtime.output.outcome import Outcome, Outgoing, UnparsedWork
from murmura.runtime.output.suspending import Suspending
from murmura.runtime.wire.message import Message
from murmura.schemas.deadletter import DeadLetterReason as Reason

DEAD = "deadletters"


class Publisher:
    """`refuses` maps a topic to the error that all its messages get; `there` has the partitions of a topic."""

    def __init__(self):
        self.taking = asyncio.Event()
        self.taking.set()
        self.refuses = {}
        self.there = {}
        self.looked_up = Counter()
        self.lookups = asyncio.Event()
        self.lookups.set()
        self.sent = []

    async def publish(self, messages):
        await asyncio.sleep(0)
        decided = [self.refuses.get(message.topic, lambda message: None)(message) for message in messages]
        self.sent += [message for message, error in zip(messages, decided, strict=True) if error is None]
        return decided

    async def partitions(self, topic):
        self.looked_up[topic] += 1
        await self.lookups.wait()
        return self.there.get(topic, 0)

    @property
    def topics(self):
        return sorted(message.topic for message in self.sent)


class Finished(list):
    def finish(self, offset):
        self.append(offset)


class Desk:
    def __init__(self, **gate):
        self.publisher, self.metrics, self.finished = Publisher(), Metrics(), Finished()
        self.box = Outbox(
            self.publisher,
            self.metrics,
            dead_letters=DEAD,
            declared_topics=["results", "reviews"],
            suspending=Suspending({}, {}, {}),
            gate=DeadLetterGate(DEAD, **{"first_pause_s": 0.01, "give_up_s": 5.0} | gate),
            on_done=lambda records: None,
        )

    def outcome(self, *messages, records=1, **more):
        outcome = Outcome()
        for offset in range(records):
            record = ConsumerRecord("in", 0, offset, 1000, 0, None, b"v", None, -1, 1, ())
            outcome.works.append(UnparsedWork(record, self.finished))
            for message in messages:
                outcome.add(Outgoing(message, record, "a", **more))
            outcome.answered.setdefault(("a", "in"), []).append(record)
        return outcome

    def count(self, outcome):
        return self.metrics.registry.get_sample_value(
            "murmura_records_total", {"agent": "a", "topic": "in", "outcome": outcome}
        )


def refused(message):
    return RecordRefused("the broker refuses it")


def missing(message):
    return TopicRefused("it is not there")


async def test_what_goes_to_a_known_topic_is_sent_while_another_is_looked_up_and_that_once():
    desk = Desk()
    desk.publisher.lookups.clear()
    sending = desk.box.send(desk.outcome(Message("results", b"r", None, []), Message("t", b"x", None, []), records=20))
    async with asyncio.timeout(60):
        while len(desk.publisher.sent) < 20:
            await asyncio.sleep(0)
    assert desk.publisher.topics == ["results"] * 20
    assert desk.finished == []
    desk.publisher.lookups.set()
    assert await sending
    assert desk.publisher.looked_up == {"t": 1}
    assert desk.publisher.topics == [DEAD] * 20 + ["results"] * 20


def first_and_others(desk):
    outcome = desk.outcome(Message("results", b"others", None, []))
    outcome.add(
        Outgoing(Message("results", b"first", None, []), outcome.works[0].record, "a", essential=True, first=True)
    )
    return outcome


async def test_what_is_to_go_first_is_acknowledged_before_the_others_of_its_record_are_sent():
    desk = Desk()
    assert await desk.box.send(first_and_others(desk))
    assert [message.value for message in desk.publisher.sent] == [b"first", b"others"]


async def test_the_others_are_not_sent_when_the_first_is_refused_or_the_partition_is_gone():
    desk = Desk()
    desk.publisher.refuses["results"] = refused
    assert not await desk.box.send(first_and_others(desk))
    assert isinstance(desk.box.failure.exception(), MurmuraError)
    desk = Desk()
    outcome = first_and_others(desk)

    async def is_gone():
        return False

    outcome.may_send = is_gone
    assert not await desk.box.send(outcome)
    assert ([message.value for message in desk.publisher.sent], desk.finished) == ([b"first"], [])


async def test_a_part_whose_messages_are_refused_has_one_dead_letter_and_is_counted_as_that_alone():
    desk = Desk()
    desk.publisher.refuses["results"] = refused
    assert await desk.box.send(desk.outcome(Message("results", b"r", None, []), Message("results", b"s", None, [])))
    assert desk.publisher.topics == [DEAD]
    assert (desk.count("dead_letter"), desk.count("answered")) == (1, None)
    assert desk.finished == [0]


async def test_a_refused_message_of_best_effort_is_dropped_and_counted():
    desk = Desk()
    desk.publisher.refuses["reviews"] = missing
    assert await desk.box.send(desk.outcome(Message("reviews", b"r", None, []), best_effort=True))
    assert desk.publisher.sent == []
    assert desk.metrics.registry.get_sample_value("murmura_dropped_messages_total", {"topic": "reviews"}) == 1
    assert desk.count("answered") == 1


async def test_a_preferred_partition_that_is_not_there_leaves_the_choice_to_the_key():
    desk = Desk()
    desk.publisher.there["results"] = 2
    message = Message("results", b"r", b"k", [], 5)
    assert await desk.box.send(desk.outcome(message, any_partition=True))
    assert desk.publisher.sent == [message._replace(partition=None)]


async def test_a_preferred_partition_that_is_gone_when_it_is_sent_to_leaves_the_choice_to_the_key():
    desk = Desk()
    desk.publisher.there["results"] = 6
    desk.publisher.refuses["results"] = lambda message: None if message.partition is None else refused(message)
    message = Message("results", b"r", b"k", [], 5)
    assert await desk.box.send(desk.outcome(message, any_partition=True))
    assert desk.publisher.sent == [message._replace(partition=None)]


@pytest.mark.parametrize("refusal", [missing, refused])
async def test_while_dead_letters_are_refused_nothing_is_taken_in_and_they_are_tried_again(refusal):
    desk = Desk()
    desk.publisher.refuses[DEAD] = refusal
    outcome = desk.outcome()
    desk.box.dead_letter(outcome, outcome.works[0].record, RecordError(Reason.INVALID, "no"), "a")
    sending = desk.box.send(outcome)
    await asyncio.sleep(0.05)
    opening = asyncio.create_task(desk.box.open())
    await asyncio.sleep(0.05)
    assert not opening.done()
    assert "takes no dead letters" in desk.box.gate.trouble
    assert desk.finished == []
    del desk.publisher.refuses[DEAD]
    assert await sending
    await asyncio.wait_for(opening, 60)
    assert desk.box.gate.trouble is None
    assert desk.finished == [0]


async def test_dead_letters_that_are_refused_for_too_long_end_the_process():
    desk = Desk(give_up_s=0.1)
    desk.publisher.refuses[DEAD] = lambda message: RecordTooLarge("no")
    outcome = desk.outcome()
    desk.box.dead_letter(outcome, outcome.works[0].record, RecordError(Reason.INVALID, "no"), "a")
    assert not await desk.box.send(outcome)
    with pytest.raises(MurmuraError, match=r"for 0\.1 s now: make the topic"):
        desk.box.failure.result()
    assert desk.finished == []
