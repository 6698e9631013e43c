"""What a failure concerns: the one table from an error of Kafka, and the place where it is met, to its scope.

Only a failure of the record may finish a record. Everything wider waits, is probed, or ends the process.
"""

from enum import StrEnum
from typing import Final

from aiokafka import errors
from aiokafka.errors import BrokerResponseError, KafkaError

from ..errors import Scope

__all__ = [
    "POISON",
    "UNKNOWN",
    "InvalidRecordError",
    "Place",
    "Scope",
    "ThrottlingQuotaError",
    "UnknownTopicIdError",
    "has_row",
    "is_of_kafka",
    "scope_of",
]


class Place(StrEnum):
    """Where an error is met."""

    SEND = "send"
    FETCH = "fetch"
    COMMIT = "commit"
    METADATA = "metadata"
    START = "start"


class InvalidRecordError(BrokerResponseError):  # type: ignore[misc]
    """The broker refuses a record for what it holds: one without a key in a compacted topic, for example."""

    errno = 87
    message = "INVALID_RECORD"
    description = "The broker refuses a record for what it holds."


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


# aiokafka calls every code that it does not know UnknownError: these are worth a name of their own.
for _error in (InvalidRecordError, ThrottlingQuotaError, UnknownTopicIdError):
    errors.kafka_errors.setdefault(_error.errno, _error)

_ANYWHERE: Final = "anywhere"

_Row = dict[str, Scope]


def _row(anywhere: Scope, **places: Scope) -> _Row:
    return {_ANYWHERE: anywhere, **places}


_RECORD, _TOPIC, _BROKER, _PROCESS = Scope.RECORD, Scope.TOPIC, Scope.BROKER, Scope.PROCESS

_TABLE: Final[dict[type[Exception], _Row]] = {
    # Of the client.
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
    # A password that is being changed is refused for a while: at start that is a wrong set-up, later it is waited for.
    errors.AuthenticationFailedError: _row(_BROKER, start=_PROCESS),
    errors.KafkaUnavailableError: _row(_BROKER),
    errors.KafkaTimeoutError: _row(_BROKER),
    errors.KafkaConnectionError: _row(_BROKER),
    # The codec is not installed: the next record will need it too.
    errors.UnsupportedCodecError: _row(_PROCESS),
    errors.KafkaConfigurationError: _row(_PROCESS),
    errors.QuotaViolationError: _row(_BROKER),
    errors.ConsumerStoppedError: _row(_PROCESS),
    errors.NoOffsetForPartitionError: _row(_TOPIC),
    errors.RecordTooLargeError: _row(_RECORD),
    errors.ProducerClosed: _row(_BROKER),
    errors.ProducerFenced: _row(_BROKER),
    # Of the broker, in the order of their codes.
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
    # Of the group: whoever was taken for dead joins again.
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
    # Of the producer: it is made anew, and what it had not decided is sent again.
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
    ThrottlingQuotaError: _row(_BROKER),
    UnknownTopicIdError: _row(_TOPIC),
}

UNKNOWN: Final = (errors.UnknownError,)
"""What a broker answers with a code that the client does not know: nothing is known of its scope."""

POISON: Final = (
    errors.OutOfOrderSequenceNumber,
    errors.UnknownProducerId,
    errors.InvalidProducerEpoch,
    errors.ProducerFenced,
    errors.ProducerClosed,
)
"""After these a producer's sender is dead or has a gap in its sequence numbers: every later send fails too."""


def scope_of(error: BaseException, place: Place) -> Scope:
    """Return the scope of an error met at a place.

    A class that has no row of its own has that of the nearest class above it. A time-out or an error of the network is
    the broker's; whatever is no error of Kafka or the network is a bug, and the process's.
    """
    for kind in type(error).__mro__:
        row = _TABLE.get(kind)
        if row is not None:
            return row.get(place.value, row[_ANYWHERE])
    return Scope.BROKER if isinstance(error, TimeoutError | OSError) else Scope.PROCESS


def has_row(kind: type[BaseException]) -> bool:
    """Say whether the table names a class itself."""
    return kind in _TABLE


def is_of_kafka(error: BaseException) -> bool:
    """Say whether an error is one of the client, the broker or the network, and no bug of ours."""
    return isinstance(error, KafkaError | OSError | TimeoutError)
