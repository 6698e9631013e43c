"""The scope of a failure: the one table from a Kafka error, and the operation in which it occurs, to its scope.

Only a failure of the record may finish a record. A failure of a wider scope waits, is probed, or ends the process.
"""

from enum import StrEnum
from typing import Final

from aiokafka import errors
from aiokafka.errors import BrokerResponseError, KafkaError

from ...errors import Scope

__all__ = [
    "POISON",
    "UNKNOWN",
    "InvalidRecordError",
    "Place",
    "Scope",
    "ThrottlingQuotaError",
    "UnknownTopicIdError",
    "UnsupportedCompressionError",
    "has_row",
    "is_of_kafka",
    "scope_of",
]


class Place(StrEnum):
    """The operation in which an error occurs."""

    SEND = "send"
    FETCH = "fetch"
    COMMIT = "commit"
    METADATA = "metadata"
    START = "start"


class InvalidRecordError(BrokerResponseError):  # type: ignore[misc]
    """The broker refuses a record because of its content, for example one without a key in a compacted topic."""

    errno = 87
    message = "INVALID_RECORD"
    description = "The broker refuses a record for what it holds."


class UnsupportedCompressionError(BrokerResponseError):  # type: ignore[misc]
    errno = 76
    message = "UNSUPPORTED_COMPRESSION_TYPE"
    description = "The broker does not take records in this codec."


class ThrottlingQuotaError(BrokerResponseError):  # type: ignore[misc]
    errno = 89
    message = "THROTTLING_QUOTA_EXCEEDED"
    description = "The quota of a client is used up for now."
    retriable = True


class UnknownTopicIdError(BrokerResponseError):  # type: ignore[misc]
    errno = 100
    message = "UNKNOWN_TOPIC_ID"
    description = "The topic was deleted, or made again under its name."
    retriable = True


# aiokafka maps every code that it does not know to UnknownError: give these their own classes.
for _error in (InvalidRecordError, UnsupportedCompressionError, ThrottlingQuotaError, UnknownTopicIdError):
    errors.kafka_errors.setdefault(_error.errno, _error)

_ANYWHERE: Final = "anywhere"

_Row = dict[str, Scope]


def _row(anywhere: Scope, **places: Scope) -> _Row:
    return {_ANYWHERE: anywhere, **places}


_RECORD, _TOPIC, _BROKER, _PROCESS = Scope.RECORD, Scope.TOPIC, Scope.BROKER, Scope.PROCESS

_TABLE: Final[dict[type[Exception], _Row]] = {
    # Client errors.
    errors.KafkaError: _row(_BROKER),
    errors.IllegalStateError: _row(_PROCESS),
    errors.IllegalArgumentError: _row(_PROCESS),
    errors.IllegalOperation: _row(_PROCESS),
    errors.NoBrokersAvailable: _row(_BROKER),
    errors.NodeNotReadyError: _row(_BROKER),
    errors.KafkaProtocolError: _row(_BROKER),
    errors.CorrelationIdError: _row(_BROKER),
    errors.Cancelled: _row(_BROKER),
    errors.TooManyInFlightRequests: _row(_BROKER),
    errors.StaleMetadata: _row(_BROKER),
    errors.MetadataEmptyBrokerList: _row(_BROKER),
    errors.UnrecognizedBrokerVersion: _row(_PROCESS),
    errors.IncompatibleBrokerVersion: _row(_PROCESS),
    errors.CommitFailedError: _row(_BROKER),
    errors.AuthenticationMethodNotSupported: _row(_PROCESS),
    # During a password change logins are refused for a while: a setup error at start, retried later.
    errors.AuthenticationFailedError: _row(_BROKER, start=_PROCESS),
    errors.KafkaUnavailableError: _row(_BROKER),
    errors.KafkaTimeoutError: _row(_BROKER),
    errors.KafkaConnectionError: _row(_BROKER),
    # The codec is not installed: later records need it too.
    errors.UnsupportedCodecError: _row(_PROCESS),
    errors.KafkaConfigurationError: _row(_PROCESS),
    errors.QuotaViolationError: _row(_BROKER),
    errors.ConsumerStoppedError: _row(_PROCESS),
    errors.NoOffsetForPartitionError: _row(_TOPIC),
    errors.RecordTooLargeError: _row(_RECORD),
    errors.ProducerClosed: _row(_BROKER),
    errors.ProducerFenced: _row(_BROKER),
    # Broker errors, in the order of their codes.
    errors.BrokerResponseError: _row(_BROKER),
    errors.NoError: _row(_BROKER),
    errors.UnknownError: _row(_BROKER),
    errors.OffsetOutOfRangeError: _row(_TOPIC),
    errors.CorruptRecordException: _row(_RECORD),
    errors.InvalidMessageError: _row(_RECORD),
    errors.UnknownTopicOrPartitionError: _row(_TOPIC),
    errors.InvalidFetchRequestError: _row(_TOPIC),
    errors.LeaderNotAvailableError: _row(_BROKER),
    errors.NotLeaderForPartitionError: _row(_BROKER),
    errors.RequestTimedOutError: _row(_BROKER),
    errors.BrokerNotAvailableError: _row(_BROKER),
    errors.ReplicaNotAvailableError: _row(_BROKER),
    errors.MessageSizeTooLargeError: _row(_RECORD),
    errors.StaleControllerEpochError: _row(_BROKER),
    errors.OffsetMetadataTooLargeError: _row(_PROCESS),
    errors.StaleLeaderEpochCodeError: _row(_BROKER),
    errors.GroupLoadInProgressError: _row(_BROKER),
    errors.CoordinatorLoadInProgressError: _row(_BROKER),
    errors.GroupCoordinatorNotAvailableError: _row(_BROKER),
    errors.CoordinatorNotAvailableError: _row(_BROKER),
    errors.NotCoordinatorForGroupError: _row(_BROKER),
    errors.NotCoordinatorError: _row(_BROKER),
    errors.InvalidTopicError: _row(_TOPIC),
    errors.RecordListTooLargeError: _row(_RECORD),
    errors.NotEnoughReplicasError: _row(_BROKER),
    errors.NotEnoughReplicasAfterAppendError: _row(_BROKER),
    errors.InvalidRequiredAcksError: _row(_PROCESS),
    # Group errors: an expelled member joins again.
    errors.IllegalGenerationError: _row(_BROKER),
    errors.InconsistentGroupProtocolError: _row(_PROCESS),
    errors.InvalidGroupIdError: _row(_PROCESS),
    errors.UnknownMemberIdError: _row(_BROKER),
    errors.InvalidSessionTimeoutError: _row(_PROCESS),
    errors.RebalanceInProgressError: _row(_BROKER),
    errors.InvalidCommitOffsetSizeError: _row(_PROCESS),
    errors.TopicAuthorizationFailedError: _row(_TOPIC),
    errors.GroupAuthorizationFailedError: _row(_PROCESS),
    errors.ClusterAuthorizationFailedError: _row(_PROCESS),
    errors.InvalidTimestampError: _row(_RECORD),
    errors.UnsupportedSaslMechanismError: _row(_PROCESS),
    errors.IllegalSaslStateError: _row(_BROKER, start=_PROCESS),
    errors.UnsupportedVersionError: _row(_PROCESS),
    errors.TopicAlreadyExistsError: _row(_TOPIC),
    errors.InvalidPartitionsError: _row(_TOPIC),
    errors.InvalidReplicationFactorError: _row(_TOPIC),
    errors.InvalidReplicationAssignmentError: _row(_TOPIC),
    errors.InvalidConfigurationError: _row(_TOPIC),
    errors.NotControllerError: _row(_BROKER),
    errors.InvalidRequestError: _row(_PROCESS),
    errors.UnsupportedForMessageFormatError: _row(_TOPIC),
    errors.PolicyViolationError: _row(_TOPIC),
    # Producer errors: the producer is replaced, and undecided messages are sent again.
    errors.OutOfOrderSequenceNumber: _row(_BROKER),
    errors.DuplicateSequenceNumber: _row(_BROKER),
    errors.InvalidProducerEpoch: _row(_BROKER),
    errors.InvalidTxnState: _row(_PROCESS),
    errors.InvalidProducerIdMapping: _row(_BROKER),
    errors.InvalidTransactionTimeout: _row(_PROCESS),
    errors.ConcurrentTransactions: _row(_BROKER),
    errors.TransactionCoordinatorFenced: _row(_BROKER),
    errors.TransactionalIdAuthorizationFailed: _row(_PROCESS),
    errors.SecurityDisabled: _row(_PROCESS),
    errors.OperationNotAttempted: _row(_BROKER),
    errors.KafkaStorageError: _row(_BROKER),
    errors.LogDirNotFound: _row(_BROKER),
    errors.SaslAuthenticationFailed: _row(_BROKER, start=_PROCESS),
    errors.UnknownProducerId: _row(_BROKER),
    errors.ReassignmentInProgress: _row(_BROKER),
    errors.DelegationTokenAuthDisabled: _row(_PROCESS),
    errors.DelegationTokenNotFound: _row(_PROCESS),
    errors.DelegationTokenOwnerMismatch: _row(_PROCESS),
    errors.DelegationTokenRequestNotAllowed: _row(_PROCESS),
    errors.DelegationTokenAuthorizationFailed: _row(_PROCESS),
    errors.DelegationTokenExpired: _row(_PROCESS),
    errors.InvalidPrincipalType: _row(_PROCESS),
    errors.NonEmptyGroup: _row(_BROKER),
    errors.GroupIdNotFound: _row(_BROKER),
    errors.FetchSessionIdNotFound: _row(_BROKER),
    errors.InvalidFetchSessionEpoch: _row(_BROKER),
    errors.ListenerNotFound: _row(_BROKER),
    errors.MemberIdRequired: _row(_BROKER),
    InvalidRecordError: _row(_RECORD),
    UnsupportedCompressionError: _row(_TOPIC),
    ThrottlingQuotaError: _row(_BROKER),
    UnknownTopicIdError: _row(_TOPIC),
}

UNKNOWN: Final = (errors.UnknownError,)
"""Errors for codes that the client does not know: their scope is unknown."""

POISON: Final = (
    errors.OutOfOrderSequenceNumber,
    errors.UnknownProducerId,
    errors.InvalidProducerEpoch,
    errors.ProducerFenced,
    errors.ProducerClosed,
)
"""Errors that break a producer: its sender has ended or its sequence numbers have a gap, so later sends fail too."""


def scope_of(error: BaseException, place: Place) -> Scope:
    """Return the scope of an error that occurred in an operation.

    A class without a row has the scope of its nearest base class. Time-outs and network errors have the scope broker;
    any other error is a bug and has the scope process.
    """
    for kind in type(error).__mro__:
        row = _TABLE.get(kind)
        if row is not None:
            return row.get(place.value, row[_ANYWHERE])
    return Scope.BROKER if isinstance(error, TimeoutError | OSError) else Scope.PROCESS


def has_row(kind: type[BaseException]) -> bool:
    """Return whether the table has a row for the class itself."""
    return kind in _TABLE


def is_of_kafka(error: BaseException) -> bool:
    """Return whether an error is one of the client, the broker or the network, not a bug of this code."""
    return isinstance(error, KafkaError | OSError | TimeoutError)
