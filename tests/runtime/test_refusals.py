"""Which answers of the broker are final, whose failure they are, and what they stop until then. Time is a number here."""

from collections import Counter

import pytest
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaConnectionError,
    NotEnoughReplicasError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
    UnknownError,
    UnsupportedVersionError,
)

from murmura.runtime.errors import ProcessRefused, RecordRefused, Scope, TopicRefused
from murmura.runtime.kafka.sending.refusals import Refusals
from murmura.runtime.kafka.sending.scopes import InvalidRecordError
from murmura.runtime.wire.message import Message

MESSAGES = [Message("declared", b"a", b"k", []), Message("other", b"b", b"k", [])]


class Call:
    """One call to publish: `fail` is an attempt in which the given messages failed, `pass_to` an acknowledged batch."""

    def __init__(self) -> None:
        self.now, self.taken = 0.0, Counter()
        self.refusals = Refusals(self.taken, declared={"declared"}, give_up_s=60, clock=lambda: self.now)
        self.decided = [None, None]

    def fail(self, *errors, times=1):
        for _ in range(times):
            again = self.refusals.decide(MESSAGES, dict(enumerate(errors)), self.decided)
        return again

    def pass_to(self, topic):
        self.taken[topic] += 1


@pytest.fixture
def call() -> Call:
    return Call()


@pytest.mark.parametrize("error", [None, KafkaConnectionError(), NotEnoughReplicasError(), OutOfOrderSequenceNumber()])
def test_a_failure_of_the_broker_is_retried_without_limit_and_stops_intake(call, error):
    for call.now in range(0, 100_000, 1000):
        assert call.fail(error) == [0]
    assert (call.refusals.stops_intake, call.refusals.pauses, call.refusals.trouble) == (True, True, None)


@pytest.mark.parametrize("error", [ClusterAuthorizationFailedError(), UnsupportedVersionError()])
def test_a_failure_of_the_process_stops_intake_and_is_final_after_the_limit(call, error):
    for call.now in (0, 30, 59):
        assert call.fail(error) == [0]
        assert (call.refusals.stops_intake, call.refusals.pauses) == (True, True)
        assert type(error).__name__ in call.refusals.trouble
    call.now = 60
    assert call.fail(error) == []
    assert isinstance(call.decided[0], ProcessRefused)
    assert call.decided[0].scope is Scope.PROCESS


@pytest.mark.parametrize("away", [None, KafkaConnectionError()])
def test_the_limit_counts_from_the_last_time_that_the_broker_was_away(call, away):
    refused = ClusterAuthorizationFailedError()
    assert call.fail(refused) == [0]
    call.now = 50
    assert call.fail(away) == [0]
    call.now = 100
    assert call.fail(refused) == [0]
    call.now = 130
    assert call.fail(OutOfOrderSequenceNumber()) == [0]  # the producer was replaced: the broker is there
    call.now = 160
    assert call.fail(refused) == []


def test_an_unknown_error_is_tried_alone_while_intake_goes_on(call):
    assert call.fail(UnknownError(), UnknownError(), times=4) == [0, 1]
    assert call.refusals.alone == {0, 1}
    assert (call.refusals.pauses, call.refusals.stops_intake, call.refusals.trouble) == (True, False, None)


@pytest.mark.parametrize("topic", [0, 1])
def test_an_unknown_error_is_the_message_s_own_when_others_to_its_topic_are_acknowledged(call, topic):
    errors = {topic: UnknownError()}
    for _ in range(4):
        assert call.refusals.decide(MESSAGES, errors, call.decided) == [topic]
    call.pass_to(MESSAGES[topic].topic)
    assert call.refusals.decide(MESSAGES, errors, call.decided) == []
    assert isinstance(call.decided[topic], RecordRefused)


def test_an_unknown_error_is_a_declared_topic_s_when_only_others_are_acknowledged(call):
    call.pass_to("other")  # before the call failed: it says nothing
    call.refusals = Refusals(call.taken, declared={"declared"})
    assert call.fail(UnknownError(), times=5) == [0]
    call.pass_to("other")
    assert call.fail(UnknownError()) == []
    assert isinstance(call.decided[0], TopicRefused)


def test_an_unknown_error_of_a_topic_that_nobody_declares_ends_the_process_after_the_limit_and_is_no_dead_letter(call):
    errors = {1: UnknownError()}
    call.pass_to("declared")
    for _ in range(20):
        assert call.refusals.decide(MESSAGES, errors, call.decided) == [1]
    assert not call.refusals.stops_intake  # other topics take what comes in
    assert "topic other" in call.refusals.trouble
    call.now = 60
    assert call.refusals.decide(MESSAGES, errors, call.decided) == []
    assert isinstance(call.decided[1], ProcessRefused)


def test_an_unknown_error_while_nothing_at_all_is_acknowledged_stops_intake_and_ends_the_process_after_the_limit(call):
    assert call.fail(UnknownError(), times=20) == [0]
    assert call.refusals.stops_intake
    call.now = 60
    assert call.fail(UnknownError()) == []
    assert isinstance(call.decided[0], ProcessRefused)


def test_a_refusal_of_a_batch_is_a_record_s_only_when_it_was_sent_alone_and_a_topic_s_at_once(call):
    assert call.fail(InvalidRecordError(), TopicAuthorizationFailedError()) == [0]
    assert (call.refusals.pauses, call.refusals.stops_intake) == (False, False)
    assert call.fail(InvalidRecordError()) == []
    assert [type(error) for error in call.decided] == [RecordRefused, TopicRefused]
