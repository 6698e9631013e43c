"""Every error of the Kafka client has a scope, and the table says which."""

import inspect

import pytest
from aiokafka import errors

from murmura.runtime.kafka.sending.scopes import POISON, InvalidRecordError, Place, Scope, has_row, scope_of

KINDS = sorted(
    {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)},
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_class_of_the_client_has_a_row_of_its_own(kind):
    assert has_row(kind)


@pytest.mark.parametrize(
    ("error", "place", "scope"),
    [
        (errors.MessageSizeTooLargeError(), Place.SEND, Scope.RECORD),
        (errors.InvalidTimestampError(), Place.SEND, Scope.RECORD),
        (InvalidRecordError(), Place.SEND, Scope.RECORD),
        (errors.CorruptRecordException(), Place.FETCH, Scope.RECORD),
        (errors.TopicAuthorizationFailedError(), Place.SEND, Scope.TOPIC),
        (errors.InvalidTopicError(), Place.SEND, Scope.TOPIC),
        (errors.PolicyViolationError(), Place.SEND, Scope.TOPIC),
        (errors.UnknownTopicOrPartitionError(), Place.METADATA, Scope.TOPIC),
        (errors.TopicAuthorizationFailedError(), Place.FETCH, Scope.TOPIC),
        (errors.KafkaConnectionError(), Place.COMMIT, Scope.BROKER),
        (errors.UnknownError(), Place.SEND, Scope.BROKER),
        (errors.AuthenticationFailedError(), Place.FETCH, Scope.BROKER),
        (errors.AuthenticationFailedError(), Place.START, Scope.PROCESS),
        (errors.GroupAuthorizationFailedError(), Place.FETCH, Scope.PROCESS),
        (errors.UnsupportedCodecError(), Place.FETCH, Scope.PROCESS),
        (TimeoutError(), Place.SEND, Scope.BROKER),
        (ConnectionResetError(), Place.FETCH, Scope.BROKER),
        (KeyError("a bug"), Place.FETCH, Scope.PROCESS),
    ],
)
def test_an_error_concerns_what_the_table_says(error, place, scope):
    assert scope_of(error, place) is scope


def test_a_code_that_the_client_does_not_name_is_named_here():
    assert errors.for_code(87) is InvalidRecordError
    assert scope_of(errors.for_code(76)(), Place.SEND) is Scope.TOPIC
    assert errors.for_code(12_345) is errors.UnknownError


def test_a_class_without_a_row_has_that_of_the_class_above_it():
    class Refined(errors.TopicAuthorizationFailedError):
        pass

    assert scope_of(Refined(), Place.SEND) is Scope.TOPIC


def test_what_poisons_a_producer_is_never_the_record_s_failure():
    assert {scope_of(kind(), Place.SEND) for kind in POISON} == {Scope.BROKER}
